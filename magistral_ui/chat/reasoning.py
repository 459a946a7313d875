"""Separates reasoning from the answer while they are written: by token id, or by text if the marks are text.

A reader is fed what the model writes and returns events, whose joined texts do not depend on how the stream was split.
Characters are never split. What was returned is revised in one case only: a mark that closes reasoning that no mark opened
turns the whole answer so far into reasoning (`Reclassified`). A reader does not know why the stream ends.

Line breaks next to marks belong to the template and are dropped, whichever engine or server the reply comes from.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import Literal, Protocol

from magistral_ui.chat.events import Answer, Reasoning, Reclassified
from magistral_ui.chat.quoted_marks import MarkContext

Channel = Literal["before", "reasoning", "answer"]
"""`before`: only white space so far, so reasoning may still begin."""
ReasoningPiece = Reasoning | Answer | Reclassified
LINE_BREAKS = "\r\n"
MIN_PARTIAL_MARK = 2
"""Leading characters of a mark that make a cut reply count as cut inside the mark; a single one may be anything."""


class TokenReader(Protocol):
    """What an engine needs of a token reader."""

    @property
    def channel(self) -> Channel:
        """Where the next token would go."""

    def feed(self, token: int) -> list[ReasoningPiece]:
        """The events of one more token."""

    def mark_resumed(self) -> None:
        """Treat what was fed so far as a resumed reply: what is held back of it is known already."""

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back; call once, at the end. If the reply was `cut`, an incomplete character is dropped."""


class MarkEdges:
    """Drops line breaks next to marks: after any mark, and before one that closes reasoning."""

    def __init__(self, *, fresh: bool = False) -> None:
        """`fresh`: right after a mark, whatever follows."""
        self._opened = self._closed = fresh
        self._held = ""
        self._known_length = 0  # characters held, and still to come, that are known already

    def open(self) -> None:
        self._opened = True

    def close(self) -> None:
        """An answer begins; what is held returns only if there is more reasoning later."""
        self._closed, self._known_length = True, 0

    def reasoning(self, text: str) -> str:
        """As much of the next reasoning as is certain: no trailing line break, since a mark may follow."""
        if not text:
            return ""
        text = self._held + text
        if self._opened:
            text = text.lstrip(LINE_BREAKS)
            self._opened = not text
        kept = text.rstrip(LINE_BREAKS)
        self._held = text[len(kept) :]
        fresh, self._known_length = kept[self._known_length :], max(0, self._known_length - len(kept))
        return fresh

    def answer(self, text: str) -> str:
        """The next part of the answer, without line breaks after a mark."""
        if self._closed:
            text = text.lstrip(LINE_BREAKS)
            self._closed = not text
        return text

    def mark_resumed(self, following: int = 0) -> None:
        """What is held, and the next `following` characters, are known already."""
        self._known_length = len(self._held) + following

    def rest(self) -> str:
        """What is held of reasoning that was cut, since no mark follows."""
        held, self._held = self._held[self._known_length :], ""
        return held


class TokenIdReader:
    """Reads tokens of models whose marks are single control tokens (Magistral 1.1, 1.2 and the demo model).

    Only the two ids open and close reasoning: the same letters typed as text stay text. Reasoning may open
    anywhere in an answer; if none was opened, the first closing mark closes everything before it. Any other mark with
    nothing to open or close is dropped, like other control tokens.
    """

    def __init__(self, begin: int, end: int, bytes_of: Callable[[int], bytes], channel: Channel = "before") -> None:
        """`bytes_of` returns a token's bytes, b"" for control tokens; `channel` is where a resumed reply continues."""
        self._begin, self._end, self._bytes_of = begin, end, bytes_of
        self._channel: Channel = channel
        self._reasoned = channel != "before"
        """Whether there was reasoning, so that the answer is certain to be one."""
        self._decoder = _utf8()
        self._edges = MarkEdges()
        self._tail = ""  # line breaks of what may turn out not to be an answer

    @property
    def channel(self) -> Channel:
        return self._channel

    def feed(self, token: int) -> list[ReasoningPiece]:
        """The events of one more token; an empty Answer means that the reasoning is closed."""
        if token == self._begin and self._channel != "reasoning":
            turned = self._turn("reasoning")
            self._edges.open()
            return [*turned, Reasoning("")]
        if token == self._end and (self._channel == "reasoning" or not self._reasoned):
            return self._close()
        data = self._bytes_of(token)
        text = self._decoder.decode(data) if data else self._cut()
        if self._channel == "reasoning":
            return [Reasoning(self._edges.reasoning(text))]
        if self._channel == "before" and text.strip():
            self._channel = "answer"
        return [Answer(self._edges.answer(text) if self._reasoned else self._unsure(text))]

    def mark_resumed(self) -> None:
        """An answer so far is certain to be one, and no line break is returned again."""
        self._reasoned = self._reasoned or self._channel == "answer"
        self._tail = ""
        self._edges.mark_resumed()

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        if not cut:
            return self._turn(self._channel)
        if self._channel == "reasoning":
            rest = self._edges.rest()
            return [Reasoning(rest, 0)] if rest else []
        return [Answer(self._tail, 0)] if self._tail else []

    def _close(self) -> list[ReasoningPiece]:
        """The closing mark: everything before it is reasoning, opened or not."""
        was, self._tail = self._channel, ""
        pieces = self._turn("answer")
        if was == "answer":
            pieces.append(Reclassified())
        self._reasoned = True
        self._edges.close()
        return [*pieces, Reasoning(""), Answer("", 0)]

    def _turn(self, channel: Channel) -> list[ReasoningPiece]:
        rest, was = self._cut(), self._channel
        self._channel = channel
        self._reasoned = self._reasoned or channel == "reasoning"
        if was == "reasoning":
            return [Reasoning(self._edges.reasoning(rest), 0)] if rest else []
        rest, self._tail = self._tail + rest, ""
        return [Answer(rest, 0)] if rest else []

    def _unsure(self, text: str) -> str:
        """As much as is certain of an answer that a closing mark may still turn into reasoning: no trailing line break."""
        text = self._tail + text
        kept = text.rstrip(LINE_BREAKS)
        self._tail = text[len(kept) :]
        return kept

    def _cut(self) -> str:
        """What is left of a character that a control token interrupts: the bytes on both sides are decoded separately."""
        rest = self._decoder.decode(b"", True)
        self._decoder.reset()
        return rest


class TextReader:
    """Reads text whose marks are text, such as `<think>` and `</think>` (Magistral 1.0, and some servers).

    Reasoning opens only at the start (white space aside) and closes once; later marks are text of the answer. Where none was
    opened, the first closing mark that is not merely mentioned closes it. A tail that may become a mark is held back.
    """

    def __init__(
        self,
        begin: str,
        end: str,
        channel: Channel = "before",
        following: Sequence[tuple[str, str]] = (),
        *,
        fresh: bool = False,
    ) -> None:
        """`following` are other possible pairs of marks; open reasoning ends with the first's. `fresh`: right after a mark."""
        self._marks, self._end = [(begin, end), *following], end
        self._channel: Channel = channel
        self._held = ""
        self._uncounted = 0  # tokens of what is held back while its channel is undecided
        self._edges = MarkEdges(fresh=fresh)
        self._known = channel != "before"  # whether an answer is certain to be one, so that no mark changes that
        self._has_answered = False  # whether any answer was returned that may turn out to be reasoning
        self._context = MarkContext()  # that answer
        self._opened = [0] * len(self._marks)  # opening marks of each pair within it
        self._mentioned = [0] * len(self._marks)  # those that were only mentioned

    @property
    def channel(self) -> Channel:
        return self._channel

    def feed(self, text: str, tokens: int = 1) -> list[ReasoningPiece]:
        """The events of more text; the first one carries `tokens`. A mark's tokens count as reasoning."""
        self._held += text
        self._uncounted += tokens
        was = self._channel
        pieces = self._read(final=False)
        if self._channel == "before":
            return []
        return self._counted(pieces, "answer" if was == "answer" else "reasoning")

    def mark_resumed(self) -> None:
        """Treat what is held back as known and counted, unless it is the start of a mark; see `finish`."""
        self._uncounted = 0
        if self._channel == "before":
            if self._is_cut_in_a_mark():
                return
            self._channel = "answer" if self._held.strip() else "before"
        if self._channel == "reasoning":
            if not self._is_cut_in_a_mark():
                self._edges.mark_resumed(len(self._held))
            return
        self._known = self._channel == "answer"
        self._held = ""

    def ignore_marks(self) -> list[ReasoningPiece]:
        """Return what was held back, since reasoning arrives separately: as answer if one has begun; white space is dropped."""
        if self._channel == "before" and not self._held.strip():
            self._held = ""
            return []
        self._known = True
        return self.finish()

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back, now that no mark can follow; if the reply was `cut`, without the start of a mark."""
        if cut and self._channel != "answer" and self._is_cut_in_a_mark():
            self._held = ""
            return []
        pieces = self._read(final=True)
        if cut and self._channel == "reasoning" and (rest := self._edges.rest()):
            pieces.append(Reasoning(rest, 0))
        return self._counted(pieces, "answer")

    def _is_cut_in_a_mark(self) -> bool:
        """Whether a reply that ended here would end inside a mark."""
        start = self._held.lstrip()
        if self._channel == "before":
            return len(start) >= MIN_PARTIAL_MARK and any(begin.startswith(start) for begin, _ in self._marks)
        return len(self._held) >= MIN_PARTIAL_MARK

    def _counted(self, pieces: list[ReasoningPiece], channel: Channel) -> list[ReasoningPiece]:
        """`pieces` with all uncounted tokens on the first one, or on an empty piece of `channel` if there is none."""
        tokens, self._uncounted = self._uncounted, 0
        if not tokens:
            return pieces
        for number, piece in enumerate(pieces):
            if not isinstance(piece, Reclassified):
                return [*pieces[:number], replace(piece, tokens=tokens), *pieces[number + 1 :]]
        return [*pieces, Reasoning("", tokens) if channel == "reasoning" else Answer("", tokens)]

    def _read(self, final: bool) -> list[ReasoningPiece]:
        pieces: list[ReasoningPiece] = []
        if self._channel == "before":
            start = self._held.lstrip()
            pair = next((pair for pair in self._marks if start.startswith(pair[0])), None)
            if pair is not None:
                self._channel, self._held, self._end = "reasoning", start[len(pair[0]) :], pair[1]
                self._known = True
                self._edges.open()
            elif final or not any(begin.startswith(start) for begin, _ in self._marks):
                self._channel = "answer"
            else:
                return []
        if self._channel == "reasoning":
            pieces += self._read_reasoning(final)
        if self._channel == "answer":
            pieces += self._read_answer() if self._known else self._look_for_a_mark(final)
        return pieces

    def _read_reasoning(self, final: bool) -> list[ReasoningPiece]:
        text, mark, rest = self._held.partition(self._end)
        if mark:
            text = self._edges.reasoning(text)
            self._edges.close()
            self._channel, self._held = "answer", rest
            return [Reasoning(text, 0), Answer("", 0)]
        part = 0 if final else partial_mark_length(text, [self._end])
        self._held = text[len(text) - part :]
        text = self._edges.reasoning(text[: len(text) - part])
        return [Reasoning(text, 0)] if text else []

    def _read_answer(self) -> list[ReasoningPiece]:
        text, self._held = self._edges.answer(self._held), ""
        return [Answer(text, 0)] if text else []

    def _look_for_a_mark(self, final: bool) -> list[ReasoningPiece]:
        """Like `_read_answer`, while a closing mark may still turn the answer into reasoning: a possible mark is held back."""
        pieces: list[ReasoningPiece] = []
        while (found := self._first_mark()) is not None:
            at, mark = found
            text = self._held[:at].rstrip(LINE_BREAKS)
            if not self._has_answered and not text.strip():
                text = ""
            pieces += self._answered(text)
            at -= len(text)
            around, after = self._held[len(text) :][:at], self._held[len(text) + at + len(mark) :]
            self._held = self._held[len(text) :]
            mentioned = self._is_mentioned(mark, around, after, final)
            if mentioned is None:
                return pieces
            self._held = after
            if not mentioned:
                return [*pieces, *self._reclassified()]
            pieces += self._answered(around + mark)
        held = 0 if final else partial_mark_length(self._held, [mark for pair in self._marks for mark in pair])
        text = self._held[: len(self._held) - held]
        text = text if final else text.rstrip(LINE_BREAKS)
        if not (self._has_answered or final or text.strip()):
            text = ""  # white space that a mark may follow is held back until it is clear what follows
        self._held = self._held[len(text) :]
        return [*pieces, *self._answered(text)]

    def _first_mark(self) -> tuple[int, str] | None:
        found = [(at, mark) for pair in self._marks for mark in pair if (at := self._held.find(mark)) >= 0]
        return min(found, default=None)

    def _is_mentioned(self, mark: str, around: str, after: str, final: bool) -> bool | None:
        """Whether a mark that follows `around` is text; None if that depends on what comes next."""
        context = copy(self._context)
        context.feed(around)
        if context.in_code:
            return True
        mentioned = context.quotes(after, final)
        if mentioned is None:
            return None
        number = next(number for number, pair in enumerate(self._marks) if mark in pair)
        if mark == self._marks[number][0]:
            mentioned = mentioned and not context.introduces(after)
            (self._mentioned if mentioned else self._opened)[number] += 1
            return True
        # What was opened in the text is closed in the text; if it was only mentioned, a mark on its own line closes reasoning.
        if self._opened[number]:
            self._opened[number] -= 1
            return True
        if self._mentioned[number] and not context.at_line_start:
            self._mentioned[number] -= 1
            return True
        return mentioned

    def _answered(self, text: str) -> list[ReasoningPiece]:
        if not text:
            return []
        self._context.feed(text)
        self._has_answered = True
        return [Answer(text, 0)]

    def _reclassified(self) -> list[ReasoningPiece]:
        """Everything so far was reasoning, which is closed; then the answer so far."""
        self._known = True
        self._edges.close()
        pieces: list[ReasoningPiece] = [Reclassified()] if self._has_answered else []
        return [*pieces, Reasoning("", 0), Answer("", 0), *self._read_answer()]


class TextTokenReader:
    """A TextReader for tokens, which it decodes to whole characters."""

    def __init__(
        self,
        begin: str,
        end: str,
        bytes_of: Callable[[int], bytes],
        channel: Channel = "before",
        following: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._text, self._bytes_of, self._decoder = TextReader(begin, end, channel, following), bytes_of, _utf8()

    @property
    def channel(self) -> Channel:
        return self._text.channel

    def feed(self, token: int) -> list[ReasoningPiece]:
        return self._text.feed(self._decoder.decode(self._bytes_of(token)))

    def mark_resumed(self) -> None:
        self._text.mark_resumed()

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        rest = "" if cut else self._decoder.decode(b"", True)
        return [*self._text.feed(rest, tokens=0), *self._text.finish(cut)]


def partial_mark_length(text: str, marks: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the start of one of `marks`."""
    sizes = (size for mark in marks for size in range(1, len(mark)) if text.endswith(mark[:size]))
    return max(sizes, default=0)


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
