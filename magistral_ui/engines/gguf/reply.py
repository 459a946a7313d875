"""One reply on llama.cpp: feeds the tokens of its streams to its sequence; who gets a slot is decided elsewhere.

The server draws tokens ahead, knowing nothing of the control over reasoning. So whenever a token is forced, or others are banned,
the stream is cut, and another one is asked for what follows the tokens written so far: all but one of them are still in the slot.
"""

from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from enum import Enum, auto

from magistral_ui.chat.events import Notice, Prefilling
from magistral_ui.engines.gguf.admission import Slot
from magistral_ui.engines.gguf.completion import (
    MIN_TEMPERATURE,
    CompletionFailed,
    CompletionStream,
    LostTokens,
    Piece,
    Prompt,
    PromptProgress,
    completion_body,
)
from magistral_ui.engines.gguf.images import ServerPrompt
from magistral_ui.engines.gguf.lost_tokens import TokenSpeller
from magistral_ui.engines.gguf.supervisor import LlamaServer
from magistral_ui.engines.local.sequence import Sequence

MAX_LEASE = 512
"""Tokens that a stream may write before the pool is looked at again. Streams begin at its multiples whatever else runs, since
the draws depend on where a stream began."""
MAX_IMAGE_LEASE = 4_096
"""The same beside images: each stream sends them again, and llama.cpp takes half a second to unpack a full-size photo."""

MORE_UNSTREAMED, MAX_UNSTREAMED = 8, 64
"""How many more tokens are asked for without streaming each time that it has to be, and how many at most. Such tokens make up no
characters; a trained model hardly writes any, but one that does, as with random weights, writes many."""
LONGEST_CHARACTER = 4
"""Tokens of a character at most: UTF-8 has as many bytes."""


def image_lease(capacity: int, slots: int) -> int:
    """The longest lease beside images for which half of the pool lets all slots write at the same time, a power of two."""
    lease = MAX_LEASE
    while 2 * lease <= min(MAX_IMAGE_LEASE, capacity // 2 // slots):
        lease *= 2
    return lease


class Next(Enum):
    """What a reply needs."""

    TOKENS = auto()
    """More from its stream."""
    STREAM = auto()
    """Another stream."""
    NOTHING = auto()
    """It has ended."""


@dataclass(eq=False, slots=True)
class SlotClearing:
    """The request that erases a slot's content."""

    slot: Slot
    stream: CompletionStream


class GGUFReply:
    """A sequence, and the stream that writes it. Only the scheduler's thread uses it once it is submitted."""

    def __init__(
        self,
        sequence: Sequence,
        speller: TokenSpeller,
        vocabulary: int,
        more: int = 0,
        image_lease: int = MAX_LEASE,
    ) -> None:
        """`more` is how many more tokens llama.cpp reads than the sequence has, since it cuts the text beside images itself.

        `image_lease` takes the place of MAX_LEASE where there are images.
        """
        self.sequence = sequence
        self.stream: CompletionStream | None = None
        self.slot: int | None = None
        self.admitted = 0
        self.reuses = False
        """Whether its next stream may use what its slot holds."""
        self.begun = False
        """Whether the server has begun the stream, so that the slot holds nothing but this reply's tokens."""
        self.forgotten = False
        """Whether what its slot holds is to be erased once it has ended: its visitor was forgotten."""
        self.granted = 0
        """Tokens that its slot holds at most once the stream is over."""
        self.held = 0
        """Tokens of the sequence that its slot certainly holds: the one that was drawn last is not read yet."""
        self._speller, self._vocabulary = speller, vocabulary
        self.more = more
        self._max_lease = image_lease if self._sent_as_text else MAX_LEASE
        self._banned: tuple[int, ...] = ()
        self._noted = False
        self._untold = 0  # tokens that the last stream wrote but did not send, and those that shall come with them
        self._ahead = 0  # how many those will be the next time

    @property
    def visitor(self) -> str:
        return self.sequence.visitor

    @property
    def owner(self) -> str:
        return self.sequence.owner

    @property
    def keys(self) -> Tokens[int]:
        return self.sequence.keys

    @property
    def common(self) -> int:
        return self.sequence.prompt.common

    @property
    def length(self) -> int:
        return self.sequence.length + self.more

    @property
    def lease(self) -> int:
        sequence = self.sequence
        lease = self._max_lease - sequence.sampling.position % self._max_lease
        if self._sent_as_text and lease < LONGEST_CHARACTER:
            lease += self._max_lease
        return min(lease, sequence.limit - sequence.written)

    @property
    def needed(self) -> int:
        return self.length + self.lease

    @property
    def paused(self) -> bool:
        return self.slot is not None and self.stream is None

    @property
    def stopped(self) -> bool:
        return self.sequence.stopped

    def note_redraw(self) -> None:
        """Say that what follows is drawn anew, if it follows something and is drawn at all: see `completion.seed_at`."""
        state = self.sequence.sampling
        if state.position and state.params.temperature >= MIN_TEMPERATURE and not self._noted:
            self._noted = True
            self.sequence.generation.put(Notice("seed_restarted"))

    def advance(self) -> bool:
        """Write the tokens that are forced next; returns whether there is more to write."""
        while (forced := self.sequence.forced_token()) is not None:
            if not self.sequence.write(forced):
                return False
        return True

    @property
    def _sent_as_text(self) -> bool:
        """Whether llama.cpp cuts the prompt itself, which cannot end within a character then."""
        return bool(self.sequence.prompt.image_spans)

    def next_prompt(self, prompt_of: Callable[[Sequence], ServerPrompt], room: int) -> ServerPrompt | None:
        """What the next stream is to continue, once the tokens that are forced are written; None if the reply has ended.

        A reply beside an image that is sent again may be cut into more tokens than it was written in: it ends when there is no
        `room` in the pool for another one.
        """
        if not self.advance():
            return None
        sequence, prompt = self.sequence, prompt_of(self.sequence)
        self.more = prompt.tokens - sequence.length
        sequence.limit = min(sequence.limit, sequence.written + room - prompt.tokens)
        if sequence.limit > sequence.written:
            return prompt
        sequence.finish("length")
        return None

    def open(self, server: LlamaServer, prompt: Prompt) -> None:
        """Ask for the next tokens, in the reply's slot; raises CompletionFailed."""
        assert self.slot is not None
        self._banned = self.sequence.banned_tokens()
        body = completion_body(
            prompt,
            self.sequence.sampling.params,
            slot=self.slot,
            reuse=self.reuses,
            count=min(self._untold, self.lease) or self.lease,
            length=self.length,
            position=self.sequence.sampling.position,
            banned=self._banned,
            stream=not self._untold,
        )
        self._untold = 0
        self.granted = self.needed
        self.stream = CompletionStream(server, body)
        self.begun = False

    def read(self) -> list[Piece]:
        """What the stream has; raises CompletionFailed."""
        assert self.stream is not None
        pieces = self.stream.read()
        self.begun = self.begun or bool(pieces)
        return pieces

    def take(self, pieces: list[Piece]) -> Next:
        """Write what was read, up to a token at which somebody pressed stop."""
        if self.stream and self.stream.writing_seconds:
            # A small model's whole reply may arrive at once, so its speed cannot be told from when it was read.
            self.sequence.generation.count_first_token(self.stream.writing_seconds)
        for piece in pieces:
            if self.stopped:
                return Next.TOKENS
            then = self._take(piece)
            if then is not Next.TOKENS:
                return then
        ended = self.stream.stop_type if self.stream else ""
        if ended == "eos":
            return self._write_end()
        return Next.STREAM if ended else Next.TOKENS

    def cut(self) -> None:
        """End the stream, if there is one."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _take(self, piece: Piece) -> Next:
        if isinstance(piece, PromptProgress):
            self._tell(piece)
            return Next.TOKENS
        if isinstance(piece, LostTokens):
            return self._take_lost(piece)
        return self._write(piece)

    def _take_lost(self, lost: LostTokens) -> Next:
        """Write the tokens that were not sent. If their text does not tell which they are, ask for them without streaming.

        Those that end a stream are drawn again instead, where the next one cannot begin within their character.
        """
        if lost.then is None and self._sent_as_text and self.sequence.written + lost.count < self.sequence.limit:
            return Next.STREAM
        ids = None if lost.then is None else self._speller.spell(lost.text, lost.count, lost.then)
        if ids is None or lost.then is None:
            self._untold = lost.count
            if lost.then is not None:
                self._untold += 1 + self._ahead
                self._ahead = min(self._ahead + MORE_UNSTREAMED, MAX_UNSTREAMED)
            return Next.STREAM
        for token in (*ids, lost.then):
            then = self._write(token)
            if then is not Next.TOKENS:
                return then
        return Next.TOKENS

    def _write(self, token: int) -> Next:
        if not 0 <= token < self._vocabulary:
            raise CompletionFailed(f"the token {token} is not in the vocabulary")
        self.held = self.sequence.length
        forced = self.sequence.forced_token()
        if forced is not None:
            return Next.STREAM if self.sequence.write(forced) else Next.NOTHING
        if self.sequence.banned_tokens() != self._banned:  # it was drawn while others were allowed
            return Next.STREAM
        return Next.TOKENS if self.sequence.write(token) else Next.NOTHING

    def _write_end(self) -> Next:
        then = self._write(self.sequence.end_of_turn)
        return Next.STREAM if then is Next.TOKENS else then

    def _tell(self, progress: PromptProgress) -> None:
        self.held = max(self.held, min(progress.done - max(0, self.more), self.sequence.length))
        if self.sequence.written:
            return
        generation, reused = self.sequence.generation, progress.reused
        self.sequence.reused = reused
        generation.count_prompt(self.length, reused)
        generation.put(Prefilling(progress.done, progress.total, reused))
