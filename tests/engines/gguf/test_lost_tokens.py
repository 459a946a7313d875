"""Tokens that the server does not send, because they leave a character incomplete, are found by their text."""

import pytest

from magistral_ui.engines.gguf.lost_tokens import TokenSpeller, is_incomplete
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
