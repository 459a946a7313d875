"""Tokens that the server does not send, because they leave a character incomplete, are found by their text."""

from types import SimpleNamespace
from typing import Any

import pytest

from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf import reply as reply_module
from magistral_ui.engines.gguf.completion import LostTokens
from magistral_ui.engines.gguf.lost_tokens import TokenSpeller, is_incomplete
from magistral_ui.engines.gguf.reply import MAX_UNSTREAMED, GGUFReply, Next
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(DEMO_FOLDER / "tekken.json", DEMO, DEMO.system())


@pytest.fixture(scope="module")
def speller(tokenizer: Tokenizer) -> TokenSpeller:
    return TokenSpeller(range(tokenizer.vocabulary), tokenizer.token_bytes)


def sent(tokenizer: Tokenizer, ids: list[int]) -> list[tuple[str, list[int], int]]:
    """What llama.cpp tells of these tokens: text, the tokens that it does not send, and the one that it does."""
    told, lost, text = [], list[int](), b""
    for token in ids:
        text += tokenizer.token_bytes(token)
        if is_incomplete(text):
            lost.append(token)
        else:
            told.append((text.decode(), lost, token))
            lost, text = [], b""
    assert not lost
    return told


@pytest.mark.parametrize(
    "text", ["😀", "a 😂 b", "👩🏽‍🚀🏳️‍🌈", "नमस्ते दुनिया", "𓀀𓁀 𒀱", "日本語の文字化け", "€20 für Ä", "ភាសាខ្មែរ", "�", "x�y"]
)
def test_every_character_s_tokens_are_found(tokenizer: Tokenizer, speller: TokenSpeller, text: str) -> None:
    told = sent(tokenizer, tokenizer._text(text))
    assert any(lost for _, lost, _ in told) or text.isascii()
    for said, lost, then in told:
        assert speller.spell(said, len(lost), then) == lost


def test_what_no_tokens_make_up_is_not_invented(tokenizer: Tokenizer, speller: TokenSpeller) -> None:
    first, *_, last = tokenizer._text("😀")
    assert speller.spell("😀", 1, first) is None  # which does not end it
    assert (
        speller.spell("�x", 1, tokenizer._text("x")[0]) is None
    )  # a character that was replaced, since it stays incomplete
    assert speller.spell("😀", 9, last) is None
    assert speller.spell("a", 1, tokenizer.end_of_turn) is None


@pytest.mark.parametrize(
    ("text", "incomplete"),
    [
        (b"", False),
        (b"a", False),
        ("é".encode(), False),
        ("é".encode()[:1], True),
        ("€".encode()[:1], True),
        ("€".encode()[:2], True),
        ("😀".encode()[:3], True),
        ("😀".encode(), False),
        (b"\x80\x80\x80\x80\x80", False),
        (b"\xff", False),
        (b"\xe2a", False),
    ],
)
def test_incomplete_characters_are_recognised(text: bytes, incomplete: bool) -> None:
    assert is_incomplete(text) is incomplete


def test_a_model_that_writes_no_characters_is_asked_ever_less_often(
    tokenizer: Tokenizer, speller: TokenSpeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each such token costs a request: what trained models hardly ever write must not slow one down that does."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        reply_module,
        "CompletionStream",
        lambda server, body: asked.append(body) or SimpleNamespace(writing_seconds=0.0),
    )
    request = GenerationRequest(Prompt((), (UserTurn("?"),)), SamplingParams(temperature=0, max_tokens=400), "ann")
    encoded = tokenizer.encode(request.prompt)
    reply = GGUFReply(Sequence(request, encoded, Generation(), tokenizer, 400), speller, tokenizer.vocabulary)
    reply.slot = 0
    for _ in range(12):
        assert reply.take([LostTokens(1, "\ufffda", tokenizer._text("a")[0])]) is Next.STREAM
        reply.open(SimpleNamespace(), [])  # type: ignore[arg-type]
        reply.open(SimpleNamespace(), [])  # type: ignore[arg-type]
    once, again = asked[::2], asked[1::2]
    assert not any(body["stream"] for body in once)
    assert all(body["stream"] for body in again)
    assert [body["n_predict"] for body in once[:3]] == [2, 10, 18]
    assert once[-1]["n_predict"] == 2 + MAX_UNSTREAMED
