"""Tells reasoning from the answer in a remote stream, whatever carries it; it does not know where the stream comes from.

Four things may carry reasoning: a field of its own (of two names, sometimes both), parts of a content list, marks in the text,
or nothing at all. What was given is never taken back, and the same words are never given twice.
"""

from collections.abc import Iterable, Sequence

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.reasoning import Channel, Piece, TextReader
from magistral_ui.engines.remote.stream import Chunk, Kind, StreamBroken

CHARACTERS_A_TOKEN = 4
"""Where a server sends several tokens in one piece: about what Magistral's tokenizer makes of English."""


class MarkedText:
    """A TextReader that learns from the first words which pair of marks this model uses."""

    def __init__(self, marks: Sequence[tuple[str, str]], channel: Channel = "before") -> None:
        """`channel` is where a resumed reply goes on: open reasoning ends with the first pair's mark."""
        self._marks = marks
        self._reader = None if channel == "before" else TextReader(*marks[0], channel=channel)
        self._held = ""

    @property
    def channel(self) -> Channel:
        """Where the next text would go."""
        return self._reader.channel if self._reader else "before"

    def feed(self, text: str) -> list[Piece]:
        """The events of more text, without token counts."""
        if self._reader is None:
            self._held += text
            text, start = self._held, self._held.lstrip()
            possible = [pair for pair in self._marks if start.startswith(pair[0]) or pair[0].startswith(start)]
            if any(not start.startswith(pair[0]) for pair in possible):
                return []
            chosen = possible[0] if possible else self._marks[0]
            self._reader, self._held = TextReader(*chosen), ""
        return self._reader.feed(text, tokens=0)

    def forget_white_space(self) -> None:
        """Reasoning came by another way: what was held back before it is no part of an answer."""
        if self._reader is None and not self._held.strip():
            self._held = ""

    def finish(self) -> list[Piece]:
        """What was held back."""
        if self._reader is None:
            return [Answer(self._held, 0)] if self._held else []
        return self._reader.finish()


class Echo:
    """Drops the beginning of a text that repeats what a request had given as its beginning (Mistral)."""

    def __init__(self, expected: str = "") -> None:
        self._expected, self._held = expected, ""

    def feed(self, text: str) -> str:
        """`text` without what is only repeated; held back while it may be."""
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
        """What was held back and is no echo after all: all of it where the stream ended within."""
        text, self._held = self._held, ""
        return text


class ReplyReader:
    """Chunks in, events out; keeps count of tokens as well as the server lets it."""

    def __init__(
        self,
        marks: Sequence[tuple[str, str]],
        *,
        one_token_a_chunk: bool = False,
        channel: Channel = "before",
        echo: tuple[str, str] = ("", ""),
    ) -> None:
        """`echo` is the reasoning and the answer that the server will repeat before it goes on."""
        self._text = MarkedText(marks, channel)
        self._one_token_a_chunk = one_token_a_chunk
        self._source: Kind | None = "text" if channel == "reasoning" else None
        self._echoes = (Echo(echo[0]), Echo(echo[1]))
        self._halves = {"reasoning": "", "text": ""}
        self.reasoning_tokens = self.answer_tokens = 0
        self.reasoning = channel != "before"
        """Whether there was reasoning."""
        self.answer = channel == "answer"
        """Whether the answer has begun, or the reasoning is closed."""
        self.marked = False
        """Whether a mark, and not only a field, told the reasoning from the answer."""

    def feed(self, chunk: Chunk) -> list[Piece]:
        """The events of one chunk, with its tokens on the first of each kind."""
        pieces = [piece for kind, text in chunk.parts for piece in self._read(kind, text)]
        return self._counted(pieces, chunk)

    def finish(self) -> list[Piece]:
        """What was held back."""
        held = self._echoes[1].finish()
        pieces = self._text.feed(held) if held else []
        return self._noted([*pieces, *self._text.finish()])

    def leave(self) -> list[Piece]:
        """What was held back where the reply is left in its middle: a part of an echo is no part of the reply."""
        return self._noted(self._text.finish())

    def settle(self, chunk: Chunk) -> list[Piece]:
        """What the server's own count has above ours, as events without text; it may come behind the end of the text."""
        if chunk.completion_tokens is None:
            return []
        reasoned = chunk.reasoning_tokens
        more = 0 if reasoned is None else max(0, reasoned - self.reasoning_tokens)
        pieces: list[Piece] = [Reasoning("", more)] if more and self.reasoning else []
        rest = chunk.completion_tokens - self.reasoning_tokens - self.answer_tokens - (more if pieces else 0)
        if rest > 0:
            pieces.append(
                Answer("", rest) if self.answer else Reasoning("", rest) if self.reasoning else Answer("", rest)
            )
        self._count(pieces)
        return pieces

    def _read(self, kind: Kind, text: str) -> list[Piece]:
        if kind == "text":
            text = self._echoes[1].feed(self._whole("text", text))
            pieces = self._text.feed(text) if text else []
            if self._text.channel == "reasoning" and self._source is None:
                self._source, self.marked = "text", True
            told = self._source in (None, "text")
            return self._noted(piece for piece in pieces if told or isinstance(piece, Answer))
        if kind == "thinking" and not text:
            return self._noted([Answer("", 0)]) if self.reasoning and not self.answer else []
        if self._source not in (None, kind):
            return []
        self._source = kind
        self._text.forget_white_space()
        text = self._echoes[0].feed(self._whole("reasoning", text))
        return self._noted([Reasoning(text, 0)]) if text else []

    def _whole(self, channel: str, text: str) -> str:
        """`text` without half characters: some servers write one in two escapes, and cut between them."""
        text = self._halves[channel] + text
        self._halves[channel] = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._halves[channel] = text[:-1], text[-1]
        if any("\ud800" <= each <= "\udfff" for each in text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text

    def _noted(self, pieces: Iterable[Piece]) -> list[Piece]:
        noted = list(pieces)
        for piece in noted:
            if isinstance(piece, Reasoning):
                self.reasoning = True
            elif self.reasoning or piece.text.strip():
                self.answer = True
        return noted

    def _counted(self, pieces: list[Piece], chunk: Chunk) -> list[Piece]:
        """`pieces` with their tokens: the server's running count where it sends one, else by the piece or by its length."""
        if chunk.completion_tokens is not None and chunk.finish_reason is None and pieces:
            tokens = max(0, chunk.completion_tokens - self.reasoning_tokens - self.answer_tokens)
            pieces = [_with_tokens(piece, 0 if n else tokens) for n, piece in enumerate(pieces)]
        elif self._one_token_a_chunk:
            pieces = [_with_tokens(piece, 0 if n else 1) for n, piece in enumerate(pieces)]
        else:
            pieces = [_with_tokens(piece, -(-len(piece.text) // CHARACTERS_A_TOKEN)) for piece in pieces]
        self._count(pieces)
        return pieces

    def _count(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, Reasoning):
                self.reasoning_tokens += piece.tokens
            else:
                self.answer_tokens += piece.tokens


def _with_tokens(piece: Piece, tokens: int) -> Piece:
    return Reasoning(piece.text, tokens) if isinstance(piece, Reasoning) else Answer(piece.text, tokens)


def gathered(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours of one kind as one event: what came with one read of the network is shown at once anyway."""
    out: list[Piece] = []
    for piece in pieces:
        if out and type(out[-1]) is type(piece):
            last = out.pop()
            piece = type(piece)(last.text + piece.text, last.tokens + piece.tokens)
        out.append(piece)
    return out


def finish_of(reason: str) -> str:
    """`stop` or `length`; StreamBroken for a reason that means that the reply is not whole."""
    if reason in ("length", "model_length", "max_tokens"):
        return "length"
    if reason in ("error", "abort", "content_filter"):
        raise StreamBroken("remote_filtered" if reason == "content_filter" else "remote_cut")
    return "stop"
