"""A reply in slices: what passes between the page's process and the one that has the GPU, and how it becomes a reply.

A slice is one call on the GPU. A reply that is longer than a slice continues in the next one, which reads its tokens again.
Nothing here asks for a GPU or needs torch.
"""

import math
import mmap
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magistral_ui.chat.events import Failed, FinishReason, Prefilling
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import Value

if TYPE_CHECKING:
    from magistral_ui.engines.local.tokenizer import EncodedPrompt
    from magistral_ui.engines.zerogpu.worker import PlacedModel

Token = tuple[int, bool]
"""A token, and whether answer-now had been requested when it was chosen, so that control decides the same in both processes."""

SLICE_MARGIN_SECONDS = 2.0
"""Seconds left over at the end of a slice, so that it ends in order instead of being aborted."""
MIN_SLICE_SECONDS, MAX_SLICE_SECONDS = 10, 120
"""Seconds of a slice. Longer ones wait longer, and a visitor without an account has two minutes a day."""
PREFILL_TOKENS_PER_SECOND = 2_000
"""Prompt tokens that are read in a second, at least."""
STOP, ANSWER = 4, 5
"""Offsets of a place's flags, after the ticket of the slice that it belongs to."""
PLACE_BYTES = 8


@dataclass(frozen=True, slots=True)
class SliceJob:
    """What one slice is to write."""

    prompt: "EncodedPrompt"
    params: SamplingParams
    limit: int
    """Tokens that the whole reply may have."""
    written: tuple[Token, ...]
    place: int
    ticket: int
    """Where in `SharedFlags` the visitor's stop and answer-now are."""
    seconds: int
    """What the GPU is asked for."""
    asked_at: float
    """By the clock of the system, time.time()."""
    tokens: int | None = None
    """Bound of this slice; None: as many as there is time for."""


@dataclass(frozen=True, slots=True)
class SlicePiece:
    """What has been written since the last piece."""

    tokens: tuple[Token, ...] = ()
    seconds: float = 0.0
    """Since the slice began."""
    prefilling: Prefilling | None = None
    end: FinishReason | Failed | None = None


class SliceEstimate:
    """Learns how fast the GPU is, and says how many seconds the next slice needs."""

    def __init__(self, weights: int = 0, tokens: int | None = None) -> None:
        """`weights` are the model's bytes: a fresh process moves them to the GPU, and each token reads them once.

        Until the rates have been measured, cautious ones hold: 2 GB and 1.2 TB a second. `tokens` bounds a slice.
        """
        self.tokens = tokens
        self.opening = 3.0 + weights / 2e9
        self.token = 0.005 + weights / 1.2e12

    def seconds(self, prompt: int, left: int) -> int:
        """For reading `prompt` tokens and writing up to `left`."""
        wanted = SLICE_MARGIN_SECONDS + self.opening + prompt / PREFILL_TOKENS_PER_SECOND + left * self.token
        return min(MAX_SLICE_SECONDS, max(MIN_SLICE_SECONDS, math.ceil(wanted)))

    def is_of_use(self, seconds: int) -> bool:
        """Whether so short a slice would write anything."""
        return seconds > SLICE_MARGIN_SECONDS + self.opening + 2

    def missed(self, seconds: int) -> None:
        self.opening = max(self.opening, float(seconds))

    def learn(self, first: float, last: float, tokens: int) -> None:
        """A slice wrote `tokens`, the first one after `first` seconds and the last after `last`."""
        self.opening = max(first, 0.8 * self.opening + 0.2 * first)
        if tokens > 1:
            self.token = 0.5 * self.token + 0.5 * (last - first) / (tokens - 1)


class SharedFlags:
    """Stop and answer-now of replies that another process writes, in memory that both processes share.

    The memory is made before any process is forked, so that each of them sees it; single bytes need no lock. Each of its
    `places` belongs to one slice of one reply at a time.
    """

    def __init__(self, places: int) -> None:
        self._memory = mmap.mmap(-1, places * PLACE_BYTES)
        self._free = list(range(places))
        self._ticket = 0
        self._lock = threading.Lock()

    def take(self) -> tuple[int, int]:
        """A free place and the ticket that proves it is one's own; RuntimeError if there is none."""
        with self._lock:
            if not self._free:
                raise RuntimeError("more replies than places")
            place = self._free.pop()
            self._ticket = self._ticket % (2**32 - 1) + 1
            struct.pack_into("<IBB", self._memory, place * PLACE_BYTES, self._ticket, 0, 0)
            return place, self._ticket

    def give_back(self, place: int) -> None:
        """Free a place: a process that still writes for it stops."""
        with self._lock:
            struct.pack_into("<IBB", self._memory, place * PLACE_BYTES, 0, 0, 0)
            self._free.append(place)

    def stop(self, place: int) -> None:
        self._memory[place * PLACE_BYTES + STOP] = 1

    def answer(self, place: int) -> None:
        self._memory[place * PLACE_BYTES + ANSWER] = 1

    def read(self, place: int, ticket: int) -> tuple[bool, bool]:
        """Whether the reply and whether its reasoning is to end; a ticket that is no longer valid ends the reply."""
        found, stop, answer = struct.unpack_from("<IBB", self._memory, place * PLACE_BYTES)
        return bool(stop) or found != ticket, bool(answer)


class SlicedReply:
    """A reply on the page's side. `take` is called from the thread that reads slices, stop and answer-now from any."""

    def __init__(self, placed: "PlacedModel", request: GenerationRequest, flags: SharedFlags) -> None:
        """Raises PromptTooLong."""
        self.generation = Generation(on_control=self._pass_control_on)
        self._request, self._flags = request, flags
        self._sequence = placed.sequence(request, self.generation)
        self._written: list[Token] = []
        self._place: int | None = None
        self._waiting = True
        self._lock = threading.RLock()

    @property
    def count(self) -> int:
        return len(self._written)

    @property
    def tokens(self) -> int:
        """Tokens of prompt and reply, which a slice reads first."""
        return self._sequence.length

    @property
    def left(self) -> int:
        """Tokens that the reply may still have."""
        return self._sequence.limit - self.count

    @contextmanager
    def slice(self) -> Iterator[tuple[int, int]]:
        """Meanwhile, the process that has this place and ticket sees the visitor's stop and answer-now."""
        place, ticket = self._flags.take()
        with self._lock:
            self._place, self._waiting = place, True
        self._pass_control_on()
        try:
            yield place, ticket
        finally:
            with self._lock:
                self._place = None
            self._flags.give_back(place)

    def job(self, place: int, ticket: int, seconds: int, now: float, tokens: int | None) -> SliceJob:
        sequence, params = self._sequence, self._request.params
        written = tuple(self._written)
        return SliceJob(sequence.prompt, params, sequence.limit, written, place, ticket, seconds, now, tokens)

    def take(self, piece: SlicePiece) -> None:
        """Emit what a slice has written; does nothing once the reply has ended."""
        with self._lock:
            self._waiting = False
            if self.generation.ended:
                return
            if piece.prefilling is not None:
                self.generation.put(piece.prefilling)
            for token, answer_now in piece.tokens:
                self._written.append((token, answer_now))
                if not self._sequence.accept(token, answer_now):
                    return
            if isinstance(piece.end, Failed):
                self._sequence.fail(piece.end.key, dict(piece.end.values))
            elif piece.end is not None:
                self._sequence.finish(piece.end)

    def fail(self, key: str, values: Mapping[str, Value] | None = None) -> None:
        """The last event, if there is none yet; what was written stays."""
        with self._lock:
            if not self.generation.ended:
                self._sequence.fail(key, values)

    def cancel(self) -> None:
        self.generation.stop()
        with self._lock:
            if not self.generation.ended:
                self._sequence.finish("cancelled")

    def _pass_control_on(self) -> None:
        """Hand stop and answer-now to the process that writes; a reply that still waits for a GPU stops at once."""
        with self._lock:
            stop, place = self.generation.stop_requested, self._place
            if place is not None:
                if stop:
                    self._flags.stop(place)
                if self.generation.answer_now_requested:
                    self._flags.answer(place)
            if stop and self._waiting and not self.generation.ended:
                self._sequence.finish("cancelled")
