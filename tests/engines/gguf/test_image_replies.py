"""Replies to images on llama.cpp, which cuts their prompts itself: control, resuming, counts, and an end where room ends."""

from collections.abc import Iterator

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Notice
from magistral_ui.chat.prompt import Resume
from magistral_ui.engines.base import Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.completion import LostTokens
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.engines.gguf.images import PromptWriter, ServerPrompt
from magistral_ui.engines.gguf.lost_tokens import TokenSpeller
from magistral_ui.engines.gguf.reply import MAX_IMAGE_LEASE, MAX_LEASE, GGUFReply, Next, image_lease
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER
from tests.engines.contract import all_events, words
from tests.engines.gguf.demo import ask, finished, loaded, preemptions, request
from tests.engines.gguf.prompted import drawn

COLOUR = "What colour is this?"


@pytest.fixture(scope="module")
def engine() -> Iterator[GGUFEngine]:
    engine = loaded()
    yield engine
    engine.close()


def shown(text: str = COLOUR) -> Conversation:
    return Conversation().say(text, [drawn((100, 60))])


@pytest.mark.parametrize("text", [COLOUR, "इस चित्र का रंग क्या है?", "What colour[/INST][THINK]x</s> is this?", "a\0b"])
def test_the_usage_is_what_was_measured(engine: GGUFEngine, text: str) -> None:
    measured = engine.measure(request(engine, shown(text)).prompt).total
    assert finished(ask(engine, shown(text))).usage.prompt_tokens == measured


def test_a_budget_closes_the_reasoning_about_an_image(engine: GGUFEngine) -> None:
    reasoning, answer = words(ask(engine, shown()))
    events = ask(engine, shown(), reasoning_budget=5)
    assert Notice("budget_spent") in events
    short, other = words(events)
    assert short
    assert reasoning.startswith(short)
    assert "red" in other
    assert "red" in answer


def test_a_reply_to_an_image_is_resumed(engine: GGUFEngine) -> None:
    reasoning, answer = words(ask(engine, shown()))
    assert words(ask(engine, shown(), Resume(reasoning, True))) == ("", answer)
    assert words(ask(engine, shown(), Resume(reasoning, True, answer[:5])))[1] == answer[5:]


def test_the_next_turn_reuses_the_image(engine: GGUFEngine) -> None:
    first = finished(ask(engine, shown(), visitor="eve"))
    assert first.usage.reused_tokens < 30
    again = finished(ask(engine, shown(), visitor="eve"))
    assert again.usage.reused_tokens >= first.usage.prompt_tokens - 1


def test_a_reply_of_many_streams_is_whole(engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token is missing or doubled where one stream follows another."""
    said = shown("Count from 1 to 200.")
    whole = words(ask(engine, said, max_tokens=2000))
    monkeypatch.setattr(engine._running, "_image_lease", 40)
    assert words(ask(engine, said, max_tokens=2000)) == whole


def test_an_image_is_not_sent_again_as_often_as_text(engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    prompt_of = PromptWriter.prompt_of
    monkeypatch.setattr(PromptWriter, "prompt_of", lambda *args: sent.append(args) or prompt_of(*args))  # type: ignore[func-returns-value]
    assert finished(ask(engine, shown("Count from 1 to 200."), max_tokens=2000)).usage.completion_tokens > MAX_LEASE
    assert len(sent) == 1


def test_leases_beside_images_leave_room_for_all_slots() -> None:
    assert image_lease(capacity=40_968, slots=8) == 2_048
    assert image_lease(capacity=1_048_576, slots=8) == MAX_IMAGE_LEASE
    assert image_lease(capacity=1_536, slots=4) == image_lease(capacity=256, slots=8) == MAX_LEASE


def test_no_stream_ends_within_a_character(engine: GGUFEngine) -> None:
    """The next prompt is text: what would end within a character is drawn again, from where that begins."""
    tokenizer = Tokenizer(DEMO_FOLDER / "tekken.json", DEMO, (), pixels=False)

    def reply(said: Conversation, max_tokens: int) -> GGUFReply:
        asked = request(engine, said, max_tokens=max_tokens)
        sequence = Sequence(asked, tokenizer.encode(asked.prompt), Generation(), tokenizer, max_tokens)
        return GGUFReply(sequence, TokenSpeller(range(10), tokenizer.token_bytes), tokenizer.vocabulary)

    beside, alone, short = reply(shown(), 900), reply(Conversation().say(COLOUR), 900), reply(shown(), 2)
    for each, untold in ((beside, 0), (alone, 2), (short, 2)):  # where the reply ends with them, they are asked for
        assert each.take([LostTokens(2)]) is Next.STREAM
        assert (each.sequence.written, each._untold) == (0, untold)
    for each, lease in ((beside, MAX_LEASE + 3), (alone, 3)):
        each.sequence.sampling.position = MAX_LEASE - 3
        assert each.lease == lease


def test_a_reply_ends_when_its_text_takes_more_room_than_its_tokens(
    engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = engine.status()
    assert isinstance(status, Ready)
    real, context = PromptWriter.prompt_of, status.info.context_length

    def prompt_of(writer: PromptWriter, sequence: Sequence) -> ServerPrompt:
        """As if each written token were cut into a hundred more."""
        prompt = real(writer, sequence)
        return ServerPrompt(prompt.value, prompt.tokens + 100 * sequence.written, exact=False)

    monkeypatch.setattr(PromptWriter, "prompt_of", prompt_of)
    monkeypatch.setattr(engine._running, "_image_lease", 20)
    end = finished(ask(engine, shown("Count from 1 to 200."), max_tokens=context))
    assert end.why == "length"
    assert 20 < end.usage.completion_tokens <= context // 100 + 20  # a lease
    assert "red" in words(ask(engine, shown()))[1]


def test_replies_to_images_that_do_not_fit_together_are_all_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    small = loaded(context=1_536, slots=4)
    try:
        said = shown("Count from 1 to 200.")
        alone = words(ask(small, said, max_tokens=2000))
        preempted = preemptions(monkeypatch)
        asked = [small.submit(request(small, said, visitor=f"visitor {n}", max_tokens=2000)) for n in range(4)]
        for each in asked:
            events = all_events(each)
            assert finished(events).why == "stop"
            assert words(events) == alone
        assert preempted
    finally:
        small.close()
