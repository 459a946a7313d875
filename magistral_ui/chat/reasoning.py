"""Tells reasoning from the answer while it is written: by token id, or by text where the marks are text.

A reader is fed what the model writes and gives events; joined, their texts are the same however the stream was cut.
Characters are given whole, and nothing given is ever taken back. A reader does not know why the stream ends.
"""

import codecs
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from magistral_ui.chat.events import Answer, Reasoning

Channel = Literal["before", "reasoning", "answer"]
"""`before`: nothing but white space was written yet, so reasoning may still begin."""
Piece = Reasoning | Answer


class TokenReader(Protocol):
    """What the engine needs of a reader of tokens."""

    @property
    def channel(self) -> Channel:
        """Where the next token would go."""

    def feed(self, token: int) -> list[Piece]:
        """The events of one more token."""

    def take_up(self) -> None:
        """What was fed so far is the beginning of a reply that goes on: what is held back of it was told before."""

    def finish(self, cut: bool = False) -> list[Piece]:
        """What was held back; call once, at the end. Half a character is left out where the reply was `cut` there."""


class TokenIdReader:
    """Reads tokens of models whose marks are single control tokens (Magistral 1.1, 1.2 and the demo model).

    Only the two ids open and close reasoning: the same letters typed as text stay text. Opening is possible
    anywhere in an answer; a mark that has nothing to open or to close is dropped, as other control tokens are.
    """

    def __init__(self, begin: int, end: int, bytes_of: Callable[[int], bytes], channel: Channel = "before") -> None:
        """`bytes_of` gives a token's bytes, b"" for control tokens; `channel` is where a resumed reply goes on."""
        self._begin, self._end, self._bytes_of = begin, end, bytes_of
        self._channel: Channel = channel
        self._decoder = _utf8()

    @property
    def channel(self) -> Channel:
        """Where the next token would go."""
        return self._channel

    def feed(self, token: int) -> list[Piece]:
        """The events of one more token; an empty Answer says that the reasoning is closed."""
        if token == self._begin and self._channel != "reasoning":
            return [*self._turn("reasoning"), Reasoning("")]
        if token == self._end and self._channel == "reasoning":
            return [*self._turn("answer"), Reasoning(""), Answer("", 0)]
        data = self._bytes_of(token)
        text = self._decoder.decode(data) if data else self._cut()
        if self._channel == "reasoning":
            return [Reasoning(text)]
        if self._channel == "before" and text.strip():
            self._channel = "answer"
        return [Answer(text)]

    def take_up(self) -> None:
        """Nothing but a part of a character is ever held back."""

    def finish(self, cut: bool = False) -> list[Piece]:
        """The replacement character where the stream ended, but was not `cut`, inside a character."""
        return [] if cut else self._turn(self._channel)

    def _turn(self, channel: Channel, count: int = 0) -> list[Piece]:
        rest = self._cut()
        piece = Reasoning if self._channel == "reasoning" else Answer
        self._channel = channel
        return [piece(rest, count)] if rest else []

    def _cut(self) -> str:
        """What a character that a control token broke off leaves: the bytes on both sides are decoded apart."""
        rest = self._decoder.decode(b"", True)
        self._decoder.reset()
        return rest


class TextReader:
    """Reads text whose marks are text, such as `<think>` and `</think>` (Magistral 1.0, and some servers).

    Reasoning opens only at the beginning (white space aside) and closes once; later marks are text of the answer.
    Line breaks around the marks belong to the template. A tail that may become a mark is held back.
    """

    def __init__(self, begin: str, end: str, channel: Channel = "before") -> None:
        self._begin, self._end = begin, end
        self._channel: Channel = channel
        self._held = ""
        self._uncounted = 0  # tokens of what is held back while it is open where they belong
        self._known = 0  # characters of what is held back that were told before
        self._fresh = channel == "before"  # line breaks right behind a mark are still to be dropped

    @property
    def channel(self) -> Channel:
        """Where the next text would go."""
        return self._channel

    def feed(self, text: str, tokens: int = 1) -> list[Piece]:
        """The events of more text; the first of them carries the count of `tokens`, the marks' among the reasoning's."""
        self._held += text
        self._uncounted += tokens
        was = self._channel
        pieces = self._read(final=False)
        if self._channel == "before":
            return []
        return self._counted(pieces, "answer" if was == "answer" else "reasoning")

    def take_up(self) -> None:
        """What is held back was told before, and counted."""
        self._known, self._uncounted = len(self._held), 0

    def finish(self) -> list[Piece]:
        """What was held back, now that no mark can follow."""
        return self._counted(self._read(final=True), "answer")

    def _counted(self, pieces: list[Piece], channel: Channel) -> list[Piece]:
        """`pieces` with the count of all tokens so far on the first; an empty one of `channel` where there are none."""
        tokens, self._uncounted = self._uncounted, 0
        if not tokens:
            return pieces
        kind = type(pieces[0]) if pieces else Reasoning if channel == "reasoning" else Answer
        return [kind(pieces[0].text if pieces else "", tokens), *pieces[1:]]

    def _read(self, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        if self._channel == "before":
            start = self._held.lstrip()
            if start.startswith(self._begin):
                self._channel, self._held, self._fresh = "reasoning", start[len(self._begin) :], True
            elif final or not self._begin.startswith(start):
                self._channel, self._fresh = "answer", False
            else:
                return []
        if self._channel == "reasoning":
            pieces += self._read_reasoning(final)
        if self._channel == "answer":
            if self._fresh:
                self._held = self._held.lstrip("\r\n")
            if self._held:
                pieces.append(Answer(self._held, 0))
                self._held, self._fresh = "", False
        return pieces

    def _read_reasoning(self, final: bool) -> list[Piece]:
        if self._fresh:
            self._held = self._held.lstrip("\r\n")
            self._fresh = not self._held
        said, mark, rest = self._held.partition(self._end)
        if mark:
            self._channel, self._held, self._fresh = "answer", rest, True
            return [Reasoning(self._fresh_part(said.rstrip("\r\n")), 0), Answer("", 0)]
        if final:
            self._held, said = "", said.rstrip("\r\n")
        else:
            cut = _safe_end(said, self._end)
            said, self._held = said[:cut], said[cut:]
        said = self._fresh_part(said)
        return [Reasoning(said, 0)] if said else []

    def _fresh_part(self, said: str) -> str:
        known = min(self._known, len(said))
        self._known -= known
        return said[known:]


class TextTokenReader:
    """A TextReader for tokens: whole characters of each token go through the textual marks."""

    def __init__(self, begin: str, end: str, bytes_of: Callable[[int], bytes], channel: Channel = "before") -> None:
        self._text, self._bytes_of, self._decoder = TextReader(begin, end, channel), bytes_of, _utf8()

    @property
    def channel(self) -> Channel:
        """Where the next token would go."""
        return self._text.channel

    def feed(self, token: int) -> list[Piece]:
        """The events of one more token."""
        return self._text.feed(self._decoder.decode(self._bytes_of(token)))

    def take_up(self) -> None:
        """What is held back was told before."""
        self._text.take_up()

    def finish(self, cut: bool = False) -> list[Piece]:
        """What was held back."""
        rest = "" if cut else self._decoder.decode(b"", True)
        return [*self._text.feed(rest, tokens=0), *self._text.finish()]


def joined(pieces: Iterable[Piece]) -> tuple[str, str]:
    """Reasoning and answer, each as one text."""
    reasoning: list[str] = []
    answer: list[str] = []
    for piece in pieces:
        (reasoning if isinstance(piece, Reasoning) else answer).append(piece.text)
    return "".join(reasoning), "".join(answer)


def _safe_end(text: str, mark: str) -> int:
    """How much of `text` can be given: all but trailing line breaks and a tail that `mark` may still complete."""
    cut = len(text)
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-size:]):
            cut -= size
            break
    while cut and text[cut - 1] in "\r\n":
        cut -= 1
    return cut


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
