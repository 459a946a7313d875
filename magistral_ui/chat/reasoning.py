"""Tells reasoning from the answer while it is written: by token id, or by text where the marks are text.

A reader is fed what the model writes and gives events; joined, their texts are the same however the stream was cut.
Characters are given whole. What was given is taken back in one case only: a mark that closes reasoning which none had opened
makes reasoning of the whole answer so far (`Reclassified`). A reader does not know why the stream ends.

Line breaks next to marks belong to the template and are left out, whichever engine and server the reply comes from.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import Literal, Protocol

from magistral_ui.chat.events import Answer, Reasoning, Reclassified
from magistral_ui.chat.quoted_marks import MarkContext

Channel = Literal["before", "reasoning", "answer"]
"""`before`: nothing but white space was written yet, so reasoning may still begin."""
ReasoningPiece = Reasoning | Answer | Reclassified
LINE_BREAKS = "\r\n"
MIN_PARTIAL_MARK = 2
"""Characters of a mark's beginning at which a reply that was cut is taken to be cut within the mark; one may be anything."""


class TokenReader(Protocol):
    """What the engine needs of a reader of tokens."""

    @property
    def channel(self) -> Channel:
        """Where the next token would go."""

    def feed(self, token: int) -> list[ReasoningPiece]:
        """The events of one more token."""

    def take_up(self) -> None:
        """What was fed so far is the beginning of a reply that goes on: what is held back of it was told before."""

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back; call once, at the end. Half a character is left out where the reply was `cut` there."""


class MarkEdges:
    """Leaves out line breaks next to marks: behind one, and before one that closes reasoning."""

    def __init__(self, *, fresh: bool = False) -> None:
        """`fresh`: right behind a mark, whatever follows."""
        self._opened = self._closed = fresh
        self._held = ""
        self._told = 0  # characters of what is held, and of what follows, that were told before

    def open(self) -> None:
        """Reasoning begins."""
        self._opened = True

    def close(self) -> None:
        """An answer begins; what is held comes back only if there is more reasoning later."""
        self._closed, self._told = True, 0

    def reasoning(self, text: str) -> str:
        """What of more reasoning can be told: no line break at its end, which a mark may follow."""
        if not text:
            return ""
        text = self._held + text
        if self._opened:
            text = text.lstrip(LINE_BREAKS)
            self._opened = not text
        kept = text.rstrip(LINE_BREAKS)
        self._held = text[len(kept) :]
        said, self._told = kept[self._told :], max(0, self._told - len(kept))
        return said

    def answer(self, text: str) -> str:
        """What of more of the answer can be told."""
        if self._closed:
            text = text.lstrip(LINE_BREAKS)
            self._closed = not text
        return text

    def take_up(self, more: int = 0) -> None:
        """What is held, and so many characters that follow, were told before."""
        self._told = len(self._held) + more

    def rest(self) -> str:
        """What is held of reasoning that was cut: no mark follows."""
        held, self._held = self._held[self._told :], ""
        return held


class TokenIdReader:
    """Reads tokens of models whose marks are single control tokens (Magistral 1.1, 1.2 and the demo model).

    Only the two ids open and close reasoning: the same letters typed as text stay text. Opening is possible
    anywhere in an answer; where nothing was opened, the first closing mark closes what came before it. Another mark that has
    nothing to open or to close is dropped, as other control tokens are.
    """

    def __init__(self, begin: int, end: int, bytes_of: Callable[[int], bytes], channel: Channel = "before") -> None:
        """`bytes_of` gives a token's bytes, b"" for control tokens; `channel` is where a resumed reply goes on."""
        self._begin, self._end, self._bytes_of = begin, end, bytes_of
        self._channel: Channel = channel
        self._reasoned = channel != "before"
        """Whether there was reasoning, so that the answer is known for one."""
        self._decoder = _utf8()
        self._edges = MarkEdges()
        self._tail = ""  # line breaks of what may not be an answer

    @property
    def channel(self) -> Channel:
        """Where the next token would go."""
        return self._channel

    def feed(self, token: int) -> list[ReasoningPiece]:
        """The events of one more token; an empty Answer says that the reasoning is closed."""
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

    def take_up(self) -> None:
        """What was told of an answer is known for one, and no line break is told again."""
        self._reasoned = self._reasoned or self._channel == "answer"
        self._tail = ""
        self._edges.take_up()

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        """The replacement character where the stream ended, but was not `cut`, inside a character."""
        if not cut:
            return self._turn(self._channel)
        if self._channel == "reasoning":
            rest = self._edges.rest()
            return [Reasoning(rest, 0)] if rest else []
        return [Answer(self._tail, 0)] if self._tail else []

    def _close(self) -> list[ReasoningPiece]:
        """The closing mark: what came before it is reasoning, opened or not."""
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
        """What can be told of an answer that a closing mark may still make reasoning of: no line break at its end."""
        text = self._tail + text
        kept = text.rstrip(LINE_BREAKS)
        self._tail = text[len(kept) :]
        return kept

    def _cut(self) -> str:
        """What a character that a control token broke off leaves: the bytes on both sides are decoded apart."""
        rest = self._decoder.decode(b"", True)
        self._decoder.reset()
        return rest


class TextReader:
    """Reads text whose marks are text, such as `<think>` and `</think>` (Magistral 1.0, and some servers).

    Reasoning opens only at the beginning (white space aside) and closes once; later marks are text of the answer. Where none was
    opened, the first closing mark that is not only spoken of closes it. A tail that may become a mark is held back.
    """

    def __init__(
        self,
        begin: str,
        end: str,
        channel: Channel = "before",
        more: Sequence[tuple[str, str]] = (),
        *,
        fresh: bool = False,
    ) -> None:
        """`more` are other pairs of marks that may come instead; open reasoning ends with the first pair's.

        `fresh` says that a resumed reply goes on right behind a mark.
        """
        self._marks, self._end = [(begin, end), *more], end
        self._channel: Channel = channel
        self._held = ""
        self._uncounted = 0  # tokens of what is held back while it is open where they belong
        self._edges = MarkEdges(fresh=fresh)
        self._known = channel != "before"  # an answer is known for one, and no mark changes that any more
        self._said = False  # whether there is anything of an answer that may turn out to be reasoning
        self._passage = MarkContext()  # what that is
        self._opened = [0] * len(self._marks)  # marks of each pair that opened within it
        self._named = [0] * len(self._marks)  # those that were only spoken of

    @property
    def channel(self) -> Channel:
        """Where the next text would go."""
        return self._channel

    def feed(self, text: str, tokens: int = 1) -> list[ReasoningPiece]:
        """The events of more text; the first of them carries the count of `tokens`, the marks' among the reasoning's."""
        self._held += text
        self._uncounted += tokens
        was = self._channel
        pieces = self._read(final=False)
        if self._channel == "before":
            return []
        return self._counted(pieces, "answer" if was == "answer" else "reasoning")

    def take_up(self) -> None:
        """What is held back was told before, and counted; not so the beginning of a mark, see `finish`."""
        self._uncounted = 0
        if self._channel == "before":
            if self._is_cut_in_a_mark():
                return
            self._channel = "answer" if self._held.strip() else "before"
        if self._channel == "reasoning":
            if not self._is_cut_in_a_mark():
                self._edges.take_up(len(self._held))
            return
        self._known = self._channel == "answer"
        self._held = ""

    def settle(self) -> list[ReasoningPiece]:
        """What is held back, now that reasoning comes by another way: an answer that has begun is one, white space is dropped."""
        if self._channel == "before" and not self._held.strip():
            self._held = ""
            return []
        self._known = True
        return self.finish()

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back, now that no mark can follow; where the reply was `cut`, not the beginning of a mark."""
        if cut and self._channel != "answer" and self._is_cut_in_a_mark():
            self._held = ""
            return []
        pieces = self._read(final=True)
        if cut and self._channel == "reasoning" and (rest := self._edges.rest()):
            pieces.append(Reasoning(rest, 0))
        return self._counted(pieces, "answer")

    def _is_cut_in_a_mark(self) -> bool:
        """Whether a reply that ended here would end within a mark."""
        start = self._held.lstrip()
        if self._channel == "before":
            return len(start) >= MIN_PARTIAL_MARK and any(begin.startswith(start) for begin, _ in self._marks)
        return len(self._held) >= MIN_PARTIAL_MARK

    def _counted(self, pieces: list[ReasoningPiece], channel: Channel) -> list[ReasoningPiece]:
        """`pieces` with the count of all tokens so far on the first; an empty one of `channel` where there are none."""
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
        said, mark, rest = self._held.partition(self._end)
        if mark:
            said = self._edges.reasoning(said)
            self._edges.close()
            self._channel, self._held = "answer", rest
            return [Reasoning(said, 0), Answer("", 0)]
        part = 0 if final else part_of(said, [self._end])
        self._held = said[len(said) - part :]
        said = self._edges.reasoning(said[: len(said) - part])
        return [Reasoning(said, 0)] if said else []

    def _read_answer(self) -> list[ReasoningPiece]:
        text, self._held = self._edges.answer(self._held), ""
        return [Answer(text, 0)] if text else []

    def _look_for_a_mark(self, final: bool) -> list[ReasoningPiece]:
        """The same while a closing mark may still come that makes reasoning of it; such a mark and what is next to it wait."""
        pieces: list[ReasoningPiece] = []
        while (found := self._first_mark()) is not None:
            at, mark = found
            text = self._held[:at].rstrip(LINE_BREAKS)
            if not self._said and not text.strip():
                text = ""
            pieces += self._answered(text)
            at -= len(text)
            around, after = self._held[len(text) :][:at], self._held[len(text) + at + len(mark) :]
            self._held = self._held[len(text) :]
            spoken_of = self._is_spoken_of(mark, around, after, final)
            if spoken_of is None:
                return pieces
            self._held = after
            if not spoken_of:
                return [*pieces, *self._reclassified()]
            pieces += self._answered(around + mark)
        held = 0 if final else part_of(self._held, [mark for pair in self._marks for mark in pair])
        text = self._held[: len(self._held) - held]
        text = text if final else text.rstrip(LINE_BREAKS)
        if not (self._said or final or text.strip()):
            text = ""  # white space that a mark may follow is told with what it leads to
        self._held = self._held[len(text) :]
        return [*pieces, *self._answered(text)]

    def _first_mark(self) -> tuple[int, str] | None:
        found = [(at, mark) for pair in self._marks for mark in pair if (at := self._held.find(mark)) >= 0]
        return min(found, default=None)

    def _is_spoken_of(self, mark: str, around: str, after: str, final: bool) -> bool | None:
        """Whether a mark that `around` comes before is text; None where that depends on what follows."""
        passage = copy(self._passage)
        passage.feed(around)
        if passage.in_code:
            return True
        spoken_of = passage.quotes(after, final)
        if spoken_of is None:
            return None
        number = next(number for number, pair in enumerate(self._marks) if mark in pair)
        if mark == self._marks[number][0]:
            spoken_of = spoken_of and not passage.introduces(after)
            (self._named if spoken_of else self._opened)[number] += 1
            return True
        # What was opened in the text is closed in the text; where it was only named, a mark that stands alone closes a thought.
        if self._opened[number]:
            self._opened[number] -= 1
            return True
        if self._named[number] and not passage.at_line_start:
            self._named[number] -= 1
            return True
        return spoken_of

    def _answered(self, text: str) -> list[ReasoningPiece]:
        if not text:
            return []
        self._passage.feed(text)
        self._said = True
        return [Answer(text, 0)]

    def _reclassified(self) -> list[ReasoningPiece]:
        """What came so far was reasoning, and is closed; then the answer, as far as it has come."""
        self._known = True
        self._edges.close()
        pieces: list[ReasoningPiece] = [Reclassified()] if self._said else []
        return [*pieces, Reasoning("", 0), Answer("", 0), *self._read_answer()]


class TextTokenReader:
    """A TextReader for tokens: whole characters of each token go through the textual marks."""

    def __init__(
        self,
        begin: str,
        end: str,
        bytes_of: Callable[[int], bytes],
        channel: Channel = "before",
        more: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._text, self._bytes_of, self._decoder = TextReader(begin, end, channel, more), bytes_of, _utf8()

    @property
    def channel(self) -> Channel:
        """Where the next token would go."""
        return self._text.channel

    def feed(self, token: int) -> list[ReasoningPiece]:
        """The events of one more token."""
        return self._text.feed(self._decoder.decode(self._bytes_of(token)))

    def take_up(self) -> None:
        """What is held back was told before."""
        self._text.take_up()

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back, but where the reply was `cut`, the part of a character or of a mark at which it was."""
        rest = "" if cut else self._decoder.decode(b"", True)
        return [*self._text.feed(rest, tokens=0), *self._text.finish(cut)]


def part_of(text: str, marks: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `marks`."""
    sizes = (size for mark in marks for size in range(1, len(mark)) if text.endswith(mark[:size]))
    return max(sizes, default=0)


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")
