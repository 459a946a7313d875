"""The same reply reads the same on every engine, and marks as text survive a limit that cuts them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.events import Event, Finished
from magistral_ui.chat.prompt import AssistantTurn, Prompt, Resume, UserTurn, resume_of
from magistral_ui.chat.reply import ReplyBuilder
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.sampler import sample_batch
from magistral_ui.engines.local.sequence import Sequence as Reply
from magistral_ui.engines.local.tokenizer import EncodedPrompt, Tokenizer
from magistral_ui.engines.remote.chunks import Chunk
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_0, ModelCard
from magistral_ui.models.folder import DEMO_FOLDER

TEKKEN = DEMO_FOLDER / "tekken.json"
TEXTUAL, SPECIAL = (Tokenizer(TEKKEN, card, card.system()) for card in (MAGISTRAL_1_0, DEMO))
PROMPT = Prompt((), (UserTurn("hi"),))


def sequence(encoder: Tokenizer, prompt: Prompt = PROMPT, limit: int = 10_000, **params: object) -> Reply:
    request = GenerationRequest(
        prompt, SamplingParams(temperature=0.0, seed=1, max_tokens=limit).changed(params), "eve"
    )
    return Reply(request, encoder.encode(prompt, "eve"), Generation(), encoder, limit)


def draft(events: Sequence[Event]) -> ReplyBuilder:
    folded = ReplyBuilder()
    for event in events:
        folded.feed(event)
    return folded


def spoken(reply: Reply) -> tuple[str, str]:
    said = draft([each.event for each in reply.generation.take()]).reply()
    return said.reasoning, said.answer


def write_likeliest(reply: Reply, encoder: Tokenizer, token: int) -> None:
    """One step of the executor, whose model finds `token` the likeliest."""
    logits = torch.zeros(encoder.tokenizer.instruct_tokenizer.tokenizer.n_words)
    logits[token] = 1.0
    forced = reply.forced_token()
    (drawn,) = sample_batch(logits[None], [reply.sampling.draw(reply.banned_tokens())])
    reply.write(drawn if forced is None else forced)


def sampled(encoder: Tokenizer, tokens: Sequence[int]) -> tuple[str, str]:
    """As the engine in this process writes it: each token is the likeliest."""
    reply = sequence(encoder)
    for token in (*tokens, encoder.end_of_turn):
        write_likeliest(reply, encoder, token)
    return spoken(reply)


def accepted(encoder: Tokenizer, tokens: Sequence[int]) -> tuple[str, str]:
    """As the engine on ZeroGPU tells what was chosen elsewhere."""
    reply = sequence(encoder)
    for token in (*tokens, encoder.end_of_turn):
        reply.accept(token, False)
    return spoken(reply)


def streamed(card: ModelCard, parts: Sequence[str]) -> tuple[str, str]:
    """As a server sends it whose stream has the marks in its text."""
    reader = ReplyReader(card.textual_marks)
    pieces = [piece for part in parts for piece in reader.feed(Chunk((("text", part),)))]
    said = draft([*pieces, *reader.finish()]).reply()
    return said.reasoning, said.answer


REPLIES = [
    "It is 5.",
    "<think>\nFirst, add.\nSo 5.\n</think>\n\nIt is 5.",
    "<think>First, add. So 5.</think>It is 5.",
    "  <think>\n\n</think>\n\nHi",
    "First, add. So 5.\n</think>\n\nIt is 5.",
    "First, add. So 5.</think>It is 5.",
    "</think>\n\nHi",
    "<think>\nFirst, add.",
    "Wait.<think>Now.</think>Done.",
    "The tag </think> ends it.",
    "Write `</think>` to end it.",
    "```\n</think>\n```\nThat is it.",
    "<think>a</think>b</think>c",
    "\n\nHi",
]


@pytest.mark.parametrize("text", REPLIES)
def test_textual_marks_read_the_same_on_every_engine(text: str) -> None:
    tokens = TEXTUAL._text(text)
    told = sampled(TEXTUAL, tokens)
    assert accepted(TEXTUAL, tokens) == told
    assert streamed(MAGISTRAL_1_0, [text]) == streamed(MAGISTRAL_1_0, list(text)) == told


@pytest.mark.parametrize(
    "text",
    [
        "It is 5.",
        "[THINK]First, add. So 5.[/THINK]It is 5.",
        "[THINK]\nFirst, add.\nSo 5.\n[/THINK]\n\nIt is 5.",
        "[THINK][/THINK]Hi",
        "First, add. So 5.[/THINK]It is 5.",
        "\nSo 5.\n[/THINK]\n\nIt is 5.",
        "[/THINK]Hi",
        "[THINK]First, add.",
    ],
)
def test_control_tokens_read_as_the_marks_that_a_server_spells_out(text: str) -> None:
    control = SPECIAL.control_tokens()
    tokens: list[int] = []
    for part in text.replace("[THINK]", "|[THINK]|").replace("[/THINK]", "|[/THINK]|").split("|"):
        tokens += {"[THINK]": control.opening, "[/THINK]": control.closing}.get(part) or SPECIAL._text(part)
    told = sampled(SPECIAL, tokens)
    assert accepted(SPECIAL, tokens) == told
    assert streamed(DEMO, [text]) == streamed(DEMO, list(text)) == told


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "b.", "`", "```\n", "€"]), max_size=10).map(
        "".join
    )
)
def test_any_text_reads_the_same_on_every_engine(text: str) -> None:
    assert accepted(TEXTUAL, TEXTUAL._text(text)) == streamed(MAGISTRAL_1_0, [text])


def forced(
    limit: int, thought: str = "so 5\n", budget: int | None = None, after: Callable[[int], bool] = lambda _: False
) -> Reply:
    """A reply that thinks `thought` again and again, until its reasoning is closed or its limit is reached."""
    reply = sequence(TEXTUAL, limit=limit, reasoning_budget=budget)
    tokens = [*TEXTUAL._text("<think>\n"), *(TEXTUAL._text(thought) * limit)]
    while not reply.generation.ended:
        if after(reply.written):
            reply.generation.answer_now()
        write_likeliest(reply, TEXTUAL, tokens[reply.written])
    return reply


@pytest.mark.parametrize("left", range(12))
def test_a_forced_mark_that_a_limit_cuts_leaves_nothing_behind(left: int) -> None:
    begun = len(TEXTUAL._text("<think>\n")) + len(TEXTUAL._text("so 5\n")) * 3
    reply = forced(begun + left, after=lambda written: written >= begun)
    last = reply.generation.take()[-1].event
    assert isinstance(last, Finished)
    assert last.why == "length"
    reasoning, answer = spoken(reply)
    assert reasoning.startswith("so 5\nso 5\nso 5")
    assert reasoning.rstrip("\n") == "so 5\nso 5\nso 5"
    assert "think" not in answer
    if answer:
        return
    # Continue goes on in the middle of the mark, and shows nothing of it either.
    cut = draft([each.event for each in reply.generation.take()]).reply()
    beginning = resume_of(cut)
    assert beginning is not None
    again = sequence(TEXTUAL, Prompt((), PROMPT.turns, beginning))
    said = "".join(map(chr, b"".join(TEXTUAL.token_bytes(token) for token in again.tokens[-again.prompt.resumed :])))
    closing = "\n</think>\n"
    part = next((size for size in range(len(closing), 0, -1) if said.endswith(closing[:size])), 0)
    for token in TEXTUAL._text(closing[part:] + "Five"):
        again.accept(token, False)
    again.finish("stop")
    whole = draft([each.event for each in again.generation.take()]).reply(before=cut)
    assert (whole.reasoning.rstrip("\n"), whole.answer) == ("so 5\nso 5\nso 5", "Five")


def test_a_resumed_prompt_reads_as_far_as_it_was_told() -> None:
    prompt = Prompt((), PROMPT.turns, Resume("so", False))
    encoded: EncodedPrompt = TEXTUAL.encode(prompt)
    assert encoded.resumed == len(TEXTUAL._text("<think>\nso"))


@pytest.mark.parametrize("encoder", [SPECIAL, TEXTUAL])
def test_a_reply_without_reasoning_is_only_its_answer(encoder: Tokenizer) -> None:
    """Even where the model would rather open its reasoning, at any place."""
    reply = sequence(encoder, reasoning_budget=0)
    marks = encoder.control_tokens()
    if encoder is TEXTUAL:
        for _ in (*marks.opening, *marks.closing):
            write_likeliest(reply, encoder, marks.end_of_turn)
    for token in (*marks.opening, *encoder._text("Yes."), marks.end_of_turn):
        write_likeliest(reply, encoder, token)
    reasoning, answer = spoken(reply)
    assert reply.generation.ended
    assert reasoning == ""
    assert answer.endswith("Yes.")
    if encoder is SPECIAL:
        assert "[THINK]" not in answer
        assert reply.generation.usage.reasoning_tokens == 0


def test_the_next_prompt_begins_with_the_tokens_of_a_reply_without_reasoning() -> None:
    """Whatever the marks are: otherwise, the prefix cache would be lost from there on."""
    for encoder in (SPECIAL, TEXTUAL):
        reply = sequence(encoder, reasoning_budget=0)
        for token in (*encoder._text("Yes."), encoder.end_of_turn):
            while (forced := reply.forced_token()) is not None:
                reply.write(forced)
            reply.write(token)
        turns = (*PROMPT.turns, AssistantTurn(spoken(reply)[1]), UserTurn("and?"))
        assert encoder.encode(Prompt((), turns), "eve").ids[: len(reply.tokens)] == reply.tokens
