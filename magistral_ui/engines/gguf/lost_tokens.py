"""Finds the ids of tokens that llama.cpp wrote but did not send, by the text they make up; it sends no request.

Its server sends nothing for a token that leaves a character incomplete: characters outside the vocabulary, as many emoji, are
written in several such tokens. Their text comes with the token that completes the character.
"""

from collections.abc import Callable, Iterable, Iterator

MAX_CHARACTER_BYTES = 4


class TokenSpeller:
    """The tokens of one vocabulary, by their bytes."""

    def __init__(self, ids: Iterable[int], bytes_of: Callable[[int], bytes]) -> None:
        """`bytes_of` returns a token's bytes, b"" for control tokens."""
        self._bytes_of = bytes_of
        self._by_bytes = {text: token for token in ids if not _is_text(text := bytes_of(token))}
        """What leaves a character incomplete is not text on its own."""

    def spell(self, text: str, count: int, then: int) -> list[int] | None:
        """The `count` tokens that make up `text` together with the token `then`, each leaving a character incomplete.

        Where several ways would do, the one with the longest first tokens, as an encoder would choose. None if there is none.
        """
        whole, last = text.encode("utf-8", "replace"), self._bytes_of(then)
        if not last or not whole.endswith(last):
            return None
        return next(self._ways(whole[: -len(last)], 0, count), None)

    def _ways(self, text: bytes, start: int, count: int) -> Iterator[list[int]]:
        if count == 0:
            if start == len(text):
                yield []
            return
        for end in range(len(text) - count + 1, start, -1):
            token = self._by_bytes.get(text[start:end])
            if token is not None and is_incomplete(text[:end]):
                for rest in self._ways(text, end, count - 1):
                    yield [token, *rest]


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_incomplete(text: bytes) -> bool:
    """Whether `text` ends in the middle of a character."""
    for back in range(1, min(MAX_CHARACTER_BYTES, len(text)) + 1):
        byte = text[-back]
        if byte & 0xC0 != 0x80:
            needed = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
            return back < needed
    return False
