"""What every engine keeps, as a suite to inherit from; it does not know which engine it runs on.

A subclass gives the fixtures `engine` (ready; may be shared), `closing_engine` (ready; the test closes it) and
`unready_engine` (not loaded), and, where the defaults do not fit, the requests: `ask` gives a short reply with reasoning
and answer, `ask_long` one that takes at least a second to write.
"""

import threading
from collections.abc import Sequence

import pytest

from magistral_ui.chat.events import LAST, Answer, Event, Finished, Reasoning
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, GenerationRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import NotReady
from tests.chat.joined import joined
from tests.engines.following import follow

SOON = 60.0
"""Seconds after which something that should end soon has failed to; no test's result depends on how fast it is."""


def all_events(generation: Generation, timeout: float = 60.0) -> list[Event]:
    assert generation.wait(timeout), "the generation did not end"
    return list(follow(generation))


def words(events: Sequence[Event]) -> tuple[str, str]:
    return joined(event for event in events if isinstance(event, Reasoning | Answer))


class EngineContract:
    """Inherit, and give the fixtures."""

    ask_text = "What is 12 + 30?"

    def ask(self, engine: Engine, text: str = "", **params: object) -> GenerationRequest:
        """A request whose reply has reasoning and an answer."""
        prompt = Prompt(engine.card.system(), (UserTurn(text or self.ask_text, message=1),))
        sampling = SamplingParams(temperature=0.0, max_tokens=400, seed=1).changed(params)
        return GenerationRequest(prompt, sampling, visitor="someone")

    def ask_long(self, engine: Engine) -> GenerationRequest:
        """A request whose reply takes long enough to be stopped."""
        return self.ask(engine, max_tokens=4000)

    def test_a_ready_engine_says_what_it_runs(self, engine: Engine) -> None:
        status = engine.status()
        assert isinstance(status, Ready)
        assert status.info.name
        assert status.info.context_length > 0

    def test_events_end_with_exactly_one_last(self, engine: Engine) -> None:
        events = all_events(engine.submit(self.ask(engine)))
        assert isinstance(events[-1], Finished)
        assert events[-1].why == "stop"
        assert not any(isinstance(event, LAST) for event in events[:-1])

    def test_reasoning_comes_before_the_answer(self, engine: Engine) -> None:
        events = all_events(engine.submit(self.ask(engine)))
        kinds = [type(event) for event in events if isinstance(event, Reasoning | Answer) and event.text.strip()]
        assert set(kinds) == {Reasoning, Answer}
        assert kinds == sorted(kinds, key=lambda kind: kind is Answer)

    def test_usage_is_what_the_events_counted(self, engine: Engine) -> None:
        events = all_events(engine.submit(self.ask(engine)))
        last = events[-1]
        assert isinstance(last, Finished)
        assert last.usage.reasoning_tokens == sum(e.tokens for e in events if isinstance(e, Reasoning))
        assert last.usage.answer_tokens == sum(e.tokens for e in events if isinstance(e, Answer))
        assert last.usage.total_seconds >= last.usage.first_token_seconds >= 0

    def test_following_from_the_middle_gives_the_tail(self, engine: Engine) -> None:
        generation = engine.submit(self.ask(engine))
        live = list(follow(generation))
        assert list(follow(generation, len(live) // 2)) == live[len(live) // 2 :]
        assert list(follow(generation)) == live

    def test_stop_ends_soon_and_keeps_what_was_written(self, engine: Engine) -> None:
        generation = engine.submit(self.ask_long(engine))
        seen: list[Event] = []
        for event in follow(generation):
            seen.append(event)
            if isinstance(event, Reasoning) and event.text:
                generation.stop()
                break
        assert generation.wait(SOON)
        events = list(follow(generation))
        assert events[: len(seen)] == seen
        assert isinstance(events[-1], Finished)
        assert events[-1].why == "cancelled"

    def test_stopping_one_leaves_the_other(self, engine: Engine) -> None:
        stopped, other = engine.submit(self.ask_long(engine)), engine.submit(self.ask(engine))
        stopped.stop()
        assert words(all_events(other)) == words(all_events(engine.submit(self.ask(engine))))
        assert stopped.wait(SOON)

    def test_stop_after_the_end_changes_nothing(self, engine: Engine) -> None:
        generation = engine.submit(self.ask(engine))
        events = all_events(generation)
        generation.stop()
        generation.answer_now()
        assert list(follow(generation)) == events

    def test_two_generations_do_not_mix(self, engine: Engine) -> None:
        texts = (self.ask_text, self.ask_text.replace("12", "57"))
        alone = [words(all_events(engine.submit(self.ask(engine, text)))) for text in texts]
        together = [engine.submit(self.ask(engine, text)) for text in texts]
        assert [words(all_events(generation)) for generation in together] == alone
        assert alone[0] != alone[1]

    def test_answer_now_leads_to_an_answer(self, engine: Engine) -> None:
        generation = engine.submit(self.ask(engine))
        generation.answer_now()
        events = all_events(generation)
        assert isinstance(events[-1], Finished)
        assert words(events)[1].strip()

    def test_the_same_request_gives_the_same_reply(self, engine: Engine) -> None:
        replies = [words(all_events(engine.submit(self.ask(engine)))) for _ in range(2)]
        assert replies[0] == replies[1]

    def test_measuring_counts_each_message(self, engine: Engine) -> None:
        measure = engine.measure(self.ask(engine).prompt)
        assert set(measure.per_message) == {1}
        assert measure.per_message[1] > 0
        assert measure.total >= measure.system + measure.per_message[1]

    def test_nothing_is_served_before_loading(self, unready_engine: Engine) -> None:
        assert not isinstance(unready_engine.status(), Ready)
        with pytest.raises(NotReady):
            unready_engine.submit(self.ask(unready_engine))

    def test_closing_ends_all(self, closing_engine: Engine) -> None:
        generations = [closing_engine.submit(self.ask_long(closing_engine)) for _ in range(3)]
        followers = [threading.Thread(target=lambda g=g: list(follow(g)), daemon=True) for g in generations]  # type: ignore[misc]
        for follower in followers:
            follower.start()
        closing_engine.close()
        for generation, follower in zip(generations, followers, strict=True):
            assert generation.wait(SOON)
            follower.join(SOON)
            assert not follower.is_alive()
        closing_engine.close()  # a second time is harmless


class DemoContract(EngineContract):
    """The suite on the demo model, whose counting lasts; the module gives the fixture `shared`, a ready engine."""

    def ask_long(self, engine: Engine) -> GenerationRequest:
        return self.ask(engine, "Count from 1 to 200.", max_tokens=4000)

    @pytest.fixture
    def engine(self, shared: Engine) -> Engine:
        return shared
