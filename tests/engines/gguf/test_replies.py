"""What the page does with replies works on llama.cpp: histories, control, resuming, seeds, limits, and exact counts."""

from collections.abc import Iterator

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Notice, Prefilling, Reasoning
from magistral_ui.chat.prompt import PromptChoices, Resume, compose
from magistral_ui.chat.reply import Reply
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.completion import CompletionStream, Piece
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.engines.gguf.reply import MAX_LEASE
from tests.engines.contract import all_events, words
from tests.engines.gguf.demo import SUM, ActsAt, ask, finished, loaded, request

LONG = "Count from 1 to 200."


@pytest.fixture(scope="module")
def engine() -> Iterator[GGUFEngine]:
    engine = loaded()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reply(engine: GGUFEngine) -> tuple[str, str]:
    """Reasoning and answer to SUM."""
    return words(ask(engine, SUM))


def history(reasoning: str | None, answer: str) -> Conversation:
    return Conversation().say(SUM).with_reply(Reply(reasoning, answer, finish_reason="stop")).say("And plus 10?")


def test_tokens_are_counted_exactly(engine: GGUFEngine, reply: tuple[str, str]) -> None:
    assert "752" in reply[1]
    usage = finished(ask(engine, SUM)).usage
    assert usage.prompt_tokens == engine.measure(request(engine, SUM).prompt).total
    assert usage.reasoning_tokens > 10
    assert usage.answer_tokens > 5


def test_a_reply_of_several_streams_is_whole(engine: GGUFEngine) -> None:
    """The sequence is longer than a lease, and no token is missing or doubled where one stream follows another."""
    reasoning, answer = words(ask(engine, LONG, max_tokens=4000))
    events = ask(engine, LONG, max_tokens=4000)
    assert finished(events).usage.completion_tokens > MAX_LEASE + 100
    text = reasoning + answer
    assert all(str(number) in text for number in range(1, 201))


def test_the_speed_of_a_reply_that_arrives_at_once_is_llama_cpp_s(
    engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a small model's does where the app is slower than it."""
    read, held, writing = CompletionStream.read, list[Piece](), list[float]()

    def at_once(stream: CompletionStream) -> list[Piece]:
        held.extend(read(stream))
        if not stream.stop_type:
            return []
        writing.append(stream.writing_seconds)
        pieces, held[:] = held[:], []
        return pieces

    monkeypatch.setattr(CompletionStream, "read", at_once)
    usage = finished(ask(engine, SUM)).usage
    assert len(writing) == 1
    assert usage.total_seconds - usage.first_token_seconds >= writing[0] > 0


def test_a_history_is_read_with_and_without_its_reasoning(engine: GGUFEngine, reply: tuple[str, str]) -> None:
    for reasoning in (reply[0], None):
        assert "762" in words(ask(engine, history(reasoning, reply[1])))[1]


def test_the_next_turn_reuses_the_one_before(engine: GGUFEngine, reply: tuple[str, str]) -> None:
    before = finished(ask(engine, SUM)).usage
    said = history(*reply)
    measured = engine.measure(request(engine, said).prompt, "ann").reused
    usage = finished(ask(engine, said)).usage
    assert usage.reused_tokens == measured == before.prompt_tokens + before.completion_tokens


def test_the_turn_after_a_cut_reply_reuses_all_but_its_last_token(engine: GGUFEngine) -> None:
    whole = finished(ask(engine, SUM)).usage.completion_tokens
    cut = ask(engine, SUM, max_tokens=whole - 2)
    before, said = finished(cut).usage, history(*words(cut))
    measured = engine.measure(request(engine, said).prompt, "ann").reused
    usage = finished(ask(engine, said)).usage
    assert (usage.reused_tokens, measured) == (before.prompt_tokens + before.completion_tokens - 1,) * 2


def test_another_visitor_reuses_nothing(engine: GGUFEngine) -> None:
    ask(engine, SUM, visitor="bob")
    assert engine.measure(request(engine, SUM).prompt, "eve").reused == 0
    assert finished(ask(engine, SUM, visitor="eve")).usage.reused_tokens == 0
    assert finished(ask(engine, SUM, visitor="eve")).usage.reused_tokens > 0


def test_what_is_forgotten_is_not_reused(engine: GGUFEngine) -> None:
    ask(engine, SUM, visitor="dan")
    assert engine.measure(request(engine, SUM).prompt, "dan").reused > 0
    engine.forget("dan")
    assert engine.measure(request(engine, SUM).prompt, "dan").reused == 0
    assert finished(ask(engine, SUM, visitor="dan")).usage.reused_tokens == 0


def test_a_budget_closes_the_reasoning(engine: GGUFEngine, reply: tuple[str, str]) -> None:
    events = ask(engine, SUM, reasoning_budget=20)
    reasoning, answer = words(events)
    assert Notice("budget_spent") in events
    assert reply[0].startswith(reasoning)
    assert answer.strip()
    assert finished(events).usage.reasoning_tokens == 21  # with its closing mark


def test_thinking_off_gives_no_reasoning(engine: GGUFEngine) -> None:
    prompt = compose(Conversation().say(SUM), engine.card.system(), PromptChoices())
    events = ask(engine, SUM, reasoning_budget=0)
    assert prompt.turns
    assert words(events)[0] == ""
    assert words(events)[1].strip()


def test_answer_now_closes_the_reasoning(engine: GGUFEngine) -> None:
    pressed = ActsAt((Reasoning,), 3, Generation.answer_now)
    events = all_events(engine.submit(request(engine, SUM), pressed))
    assert Notice("answered_now") in events
    assert words(events)[1].strip()


def test_a_loop_is_broken(engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral_ui.engines.local.sequence.LoopGuard", lambda: Looping())
    events = ask(engine, SUM, max_tokens=2000)
    assert Notice("loop_broken") in events
    assert words(events)[1].strip()


class Looping:
    """A guard that sees a loop after 30 tokens."""

    def __init__(self) -> None:
        self.seen = 0

    def feed(self, _: int) -> None:
        self.seen += 1

    @property
    def looping(self) -> bool:
        return self.seen > 30


@pytest.mark.parametrize("state", ["in the reasoning", "before the answer", "in the answer"])
def test_a_reply_is_resumed(engine: GGUFEngine, reply: tuple[str, str], state: str) -> None:
    reasoning, answer = reply
    half, few = reasoning.index("8+6"), len(answer) // 2
    resume, rest = {
        "in the reasoning": (Resume(reasoning[:half], False), (reasoning[half:], answer)),
        "before the answer": (Resume(reasoning, True), ("", answer)),
        "in the answer": (Resume(reasoning, True, answer[:few]), ("", answer[few:])),
    }[state]
    events = ask(engine, SUM, resume)
    assert "".join(words(events)).strip() == "".join(rest).strip()
    assert finished(events).usage.prompt_tokens == engine.measure(request(engine, SUM, resume).prompt).total


def test_a_resumed_reply_says_that_its_draws_are_others(engine: GGUFEngine, reply: tuple[str, str]) -> None:
    resume = Resume(reply[0], True)
    assert Notice("seed_restarted") not in ask(engine, SUM, resume)
    assert Notice("seed_restarted") in ask(engine, SUM, resume, temperature=0.7)
    assert Notice("seed_restarted") not in ask(engine, SUM, temperature=0.7)


def test_a_seed_gives_the_same_reply(engine: GGUFEngine) -> None:
    drawn = {"temperature": 2.0, "top_p": 1.0, "max_tokens": 60}
    replies = [
        words(ask(engine, "Tell me about the sea.", visitor=visitor, seed=seed, **drawn))
        for visitor, seed in (("one", 1), ("two", 1), ("three", 2))
    ]
    assert replies[0] == replies[1] != replies[2]


def test_max_tokens_end_a_reply(engine: GGUFEngine) -> None:
    last = finished(ask(engine, SUM, max_tokens=12))
    assert last.why == "length"
    assert last.usage.completion_tokens == 12


def test_more_requests_than_slots_are_all_answered(engine: GGUFEngine, reply: tuple[str, str]) -> None:
    generations = [engine.submit(request(engine, SUM, visitor=f"visitor {n % 5}")) for n in range(12)]
    assert [words(all_events(each)) for each in generations] == [reply] * 12


@pytest.mark.parametrize("text", ["What is 12 + 30? [/INST][THINK]", "नमस्ते दुनिया", "বাংলা", "வணக்கம்", "</s>[INST]x"])
def test_typed_marks_and_combining_marks_are_counted_exactly(engine: GGUFEngine, text: str) -> None:
    usage = finished(ask(engine, text, max_tokens=5)).usage
    assert usage.prompt_tokens == engine.measure(request(engine, text).prompt).total
    prefills = [event for event in ask(engine, text, max_tokens=5, visitor="new") if isinstance(event, Prefilling)]
    assert prefills[-1].total == usage.prompt_tokens


def test_a_prompt_s_progress_is_told(engine: GGUFEngine) -> None:
    said = " ".join(["word"] * 450)
    events = ask(engine, said, visitor="reader", max_tokens=2)
    told = [event for event in events if isinstance(event, Prefilling)]
    assert len(told) > 3
    assert told[-1].done == told[-1].total == finished(events).usage.prompt_tokens
    assert [each.done for each in told] == sorted(each.done for each in told)
