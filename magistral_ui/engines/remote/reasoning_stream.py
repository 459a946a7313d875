"""Separates reasoning from the answer in a server's stream, however it is marked; it does not know which server sent it.

Reasoning may come in a field of its own (under various names, or in several fields at once), in parts of a content list, between
marks in the text, or unmarked. No text is returned twice. chat/reasoning.py says what the marks mean.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from io import SEEK_END, StringIO

from magistral_ui.chat.events import Answer, Reasoning, Reclassified
from magistral_ui.chat.reasoning import LINE_BREAKS, Channel, MarkEdges, ReasoningPiece, TextReader, partial_mark_length
from magistral_ui.engines.remote.chunks import Chunk, Kind

CHARACTERS_PER_TOKEN = 4
"""For servers that send several tokens per piece: about the ratio of Magistral's tokenizer for English."""


class EchoFilter:
    """Drops the start of a text that only repeats the request's prefix (Mistral)."""

    def __init__(self, expected: str = "") -> None:
        self._expected, self._held = expected, ""

    def feed(self, text: str) -> str:
        """`text` without the repetition; held back while it may be one."""
        if not self._expected:
            return text
        self._held += text
        if self._held.startswith(self._expected):
            text = self._held[len(self._expected) :]
        elif self._expected.startswith(self._held):
            return ""
        else:
            text = self._held
        self._expected = self._held = ""
        return text

    def finish(self) -> str:
        """What was held back and is not an echo after all, even if the stream ended in the middle of it."""
        text, self._held = self._held, ""
        return text


class RepeatedReasoning:
    """Removes leftovers of the reasoning from the start of an answer, if the reasoning came in a field of its own.

    There are two kinds: a single leading closing mark, and the whole reasoning once more between marks, as in llama.cpp's
    `deepseek-legacy` format. Every other mark is text. `feed` costs the length of what is new.
    """

    def __init__(self, marks: Sequence[tuple[str, str]], reasoning_at: Callable[[int, int], str]) -> None:
        """`reasoning_at(start, count)` returns at most `count` characters of the reasoning so far."""
        self._marks, self._reasoning_at = marks, reasoning_at
        self._held: list[str] = []
        self._end = ""  # the mark that would end the reasoning, while it is being repeated
        self._uncompared = ""  # the part that has not been compared yet
        self._matched = 0  # characters of the reasoning that were repeated

    def feed(self, text: str) -> str | None:
        """The start of the answer; None while it is unknown, in which case the text is held back."""
        self._held.append(text)
        if self._end:
            return self._compare(text)
        start = "".join(self._held).lstrip()
        for begin, end in self._marks:
            if start.startswith(end):
                return start[len(end) :].lstrip() or None
            if start.startswith(begin):
                self._end = end
                return self._compare(start[len(begin) :])
        if not start or any(mark.startswith(start) for pair in self._marks for mark in pair):
            return None
        return "".join(self._held)

    def finish(self) -> str:
        """What was held back and belongs to the answer after all, now that nothing follows."""
        lead = "".join(self._held)
        if self._matched or any(lead.strip() == end for _, end in self._marks):
            return ""
        return lead

    def _compare(self, text: str) -> str | None:
        rest = self._uncompared + text
        if not self._matched:
            rest = rest.lstrip(LINE_BREAKS)
        again, mark, after = rest.partition(self._end)
        if not mark:
            again = again[: len(again) - partial_mark_length(again, [self._end])]
        again = again.rstrip(LINE_BREAKS)
        if self._reasoning_at(self._matched, len(again)) != again:
            return "".join(self._held)
        self._matched += len(again)
        if not mark:
            self._uncompared = rest[len(again) :]
            return None
        if not self._matched or self._reasoning_at(self._matched, 1):
            return "".join(self._held)
        self._held, self._end = [], ""
        return after.lstrip(LINE_BREAKS) or None


class ReplyReader:
    """Turns chunks into events and counts their tokens as exactly as the server allows.

    Marks in the text separate reasoning until a field or a thinking part brings reasoning. From then on the text is the answer,
    whatever marks it contains, except for what RepeatedReasoning removes.
    """

    def __init__(
        self,
        marks: Sequence[tuple[str, str]],
        *,
        one_token_a_chunk: bool = False,
        channel: Channel = "before",
        fresh: bool = True,
        echo: tuple[str, str] = ("", ""),
    ) -> None:
        """`channel` is where a resumed reply continues; `fresh` means that a reply starts, or continues right after a mark.

        `echo` is the reasoning and the answer that the server repeats before it continues.
        """
        own, *more = marks
        self._marks = marks
        self._text = TextReader(*own, channel, more, fresh=fresh and channel == "answer")
        self._edges = MarkEdges(fresh=fresh)
        self._one_token_a_chunk = one_token_a_chunk
        self._reasoning_by_field = self._refused = self._answered = False
        self._reasoning_so_far = StringIO()
        self._repeated = 0  # characters of the reasoning that a field has repeated after marks brought them
        self._leftovers: RepeatedReasoning | None = None
        self._echoes = (EchoFilter(echo[0]), EchoFilter(echo[1]))
        self._lone_surrogates: dict[str, str] = {}
        self._received: dict[Kind, list[str]] = {}
        self.reasoning_tokens = self.answer_tokens = 0
        self.reasoning = channel != "before"
        self.answer = channel == "answer"
        """Whether the answer has begun, or the reasoning has been closed."""
        self.marked = channel == "reasoning"
        """Whether a mark, and not only a field, separated the reasoning from the answer."""

    def feed(self, chunk: Chunk) -> list[ReasoningPiece]:
        """The events of one chunk, with its tokens on the first of each kind."""
        parts = [(kind, self._new_part(kind, text) if chunk.cumulative else text) for kind, text in chunk.parts]
        for kind, text in parts:
            self._received.setdefault(kind, []).append(text)
        pieces = [piece for kind, text in parts for piece in self._read(kind, text)]
        return self._with_counts(pieces, chunk)

    def finish(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back; `cut`: a limit ended the reply."""
        held = self._echoes[1].finish()
        pieces = self._read_text(held) if held else []
        return self._record([*pieces, *self._held_back(cut)])

    def leave(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back if the stream is abandoned: part of an echo is not part of the reply."""
        return self._record(self._held_back(cut))

    def reconcile_usage(self, chunk: Chunk) -> list[ReasoningPiece]:
        """The difference between the server's token count and ours, as events without text."""
        if chunk.completion_tokens is None:
            return []
        reasoned = chunk.reasoning_tokens
        more = 0 if reasoned is None else max(0, reasoned - self.reasoning_tokens)
        pieces: list[ReasoningPiece] = [Reasoning("", more)] if more and self.reasoning else []
        rest = chunk.completion_tokens - self.reasoning_tokens - self.answer_tokens - (more if pieces else 0)
        if rest > 0:
            pieces.append(Reasoning("", rest) if self.reasoning and not self.answer else Answer("", rest))
        self._count(pieces)
        return pieces

    def _read(self, kind: Kind, text: str) -> list[ReasoningPiece]:
        if kind == "text":
            return self._record(self._read_text(self._echoes[1].feed(self._join_surrogates("text", text))))
        if kind == "refusal":
            return self._record(self._read_refusal(self._join_surrogates("refusal", text)))
        if kind == "thinking" and not text:
            return self._record([Answer("", 0)]) if self.reasoning and not self.answer else []
        return self._record(self._read_field(self._echoes[0].feed(self._join_surrogates("reasoning", text))))

    def _read_text(self, text: str) -> list[ReasoningPiece]:
        if not text:
            return []
        if self._reasoning_by_field:
            return self._read_answer_text(text)
        pieces = self._text.feed(text, tokens=0)
        self.marked = self.marked or any(isinstance(piece, Reasoning) for piece in pieces)
        return pieces

    def _read_field(self, text: str) -> list[ReasoningPiece]:
        """Reasoning from a field, unless marks in the text have already brought it."""
        if not text:
            return []
        pieces: list[ReasoningPiece] = []
        if not self._reasoning_by_field:
            if self.marked and text.strip() and self._reasoning_at(self._repeated, len(text)).strip() == text.strip():
                self._repeated += len(text)
                return []
            pieces = self._text.finish() if self._text.channel == "reasoning" else self._text.ignore_marks()
            self._answer_by_field()
            if self.answer or any(isinstance(piece, Answer) for piece in pieces):
                self._leftovers = None  # the answer had begun before
        text = self._edges.reasoning(text)
        return [*pieces, Reasoning(text, 0)] if text else pieces

    def _read_refusal(self, text: str) -> list[ReasoningPiece]:
        """A refusal is shown as an answer, separated from any earlier one."""
        pieces = self._held_back() if text and not self._refused else []
        if text and not self._refused and (self._answered or any(isinstance(piece, Answer) for piece in pieces)):
            text = f"\n\n{text}"
        if text and not self._refused:
            self._refused = True
            self._answer_by_field()
            self._leftovers = None
        return [*pieces, Answer(text, 0)] if text else []

    def _answer_by_field(self) -> None:
        """Treat the text as the answer from now on."""
        if not self._reasoning_by_field:
            self._reasoning_by_field = True
            self._leftovers = RepeatedReasoning(self._marks, self._reasoning_at)
            self._edges.close()

    def _reasoning_at(self, start: int, count: int) -> str:
        self._reasoning_so_far.seek(start)
        return self._reasoning_so_far.read(count)

    def _read_answer_text(self, text: str) -> list[ReasoningPiece]:
        """The answer of a reply whose reasoning came in a field."""
        if self._leftovers is not None:
            answer = self._leftovers.feed(text)
            if answer is None:
                return []
            self._leftovers, text = None, answer
        text = self._edges.answer(text)
        return [Answer(text, 0)] if text else []

    def _held_back(self, cut: bool = False) -> list[ReasoningPiece]:
        """What was held back, now that nothing follows."""
        if not self._reasoning_by_field:
            return self._text.finish(cut)
        lead, self._leftovers = self._leftovers.finish() if self._leftovers else "", None
        if lead and (lead := self._edges.answer(lead)):
            return [Answer(lead, 0)]
        rest = self._edges.rest() if cut and not self.answer else ""
        return [Reasoning(rest, 0)] if rest else []

    def _new_part(self, kind: Kind, text: str) -> str:
        """The new part of a text that repeats everything so far; nothing if it differs from what came before."""
        before = "".join(self._received.get(kind, ()))
        return text[len(before) :] if text.startswith(before) else ""

    def _join_surrogates(self, channel: str, text: str) -> str:
        """`text` without lone surrogates: some servers escape a character as a surrogate pair, and split the pair."""
        text = self._lone_surrogates.get(channel, "") + text
        self._lone_surrogates[channel] = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._lone_surrogates[channel] = text[:-1], text[-1]
        if any("\ud800" <= each <= "\udfff" for each in text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text

    def _record(self, pieces: Iterable[ReasoningPiece]) -> list[ReasoningPiece]:
        noted = list(pieces)
        for piece in noted:
            if isinstance(piece, Reasoning):
                self.reasoning = True
                self._reasoning_so_far.seek(0, SEEK_END)
                self._reasoning_so_far.write(piece.text)
            elif isinstance(piece, Reclassified):
                self.reasoning, self.answer, self._answered = True, False, False
            else:
                self._answered = self._answered or bool(piece.text.strip())
                self.answer = self.answer or self.reasoning or self._answered
        return noted

    def _with_counts(self, pieces: list[ReasoningPiece], chunk: Chunk) -> list[ReasoningPiece]:
        """`pieces` with token counts: from the server's running total if it sends one, else one per chunk, or by length."""
        first = next((n for n, piece in enumerate(pieces) if not isinstance(piece, Reclassified)), None)
        if chunk.completion_tokens is not None and chunk.finish_reason is None and pieces:
            tokens = max(0, chunk.completion_tokens - self.reasoning_tokens - self.answer_tokens)
            pieces = [_with_tokens(piece, tokens if n == first else 0) for n, piece in enumerate(pieces)]
        elif self._one_token_a_chunk:
            pieces = [_with_tokens(piece, int(n == first)) for n, piece in enumerate(pieces)]
        else:
            pieces = [_with_tokens(piece, _estimated_tokens(piece)) for piece in pieces]
        self._count(pieces)
        return pieces

    def _count(self, pieces: Iterable[ReasoningPiece]) -> None:
        for piece in pieces:
            if isinstance(piece, Reasoning):
                self.reasoning_tokens += piece.tokens
            elif isinstance(piece, Answer):
                self.answer_tokens += piece.tokens
            else:
                self.reasoning_tokens, self.answer_tokens = self.reasoning_tokens + self.answer_tokens, 0


def _estimated_tokens(piece: ReasoningPiece) -> int:
    return 0 if isinstance(piece, Reclassified) else -(-len(piece.text) // CHARACTERS_PER_TOKEN)


def _with_tokens(piece: ReasoningPiece, tokens: int) -> ReasoningPiece:
    return piece if isinstance(piece, Reclassified) else replace(piece, tokens=tokens)


def merge_adjacent(pieces: Sequence[ReasoningPiece]) -> list[ReasoningPiece]:
    """Adjacent pieces of the same kind as one event, since what arrives in one read is shown at once anyway."""
    out: list[ReasoningPiece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if isinstance(piece, Reasoning | Answer) and isinstance(last, type(piece)):
            out[-1] = replace(piece, text=last.text + piece.text, tokens=last.tokens + piece.tokens)
        else:
            out.append(piece)
    return out
