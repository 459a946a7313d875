"""One reply that is put together from slices: its tokens, its events, and its visitor's wishes; it asks for no GPU itself."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from magistral_ui.chat.events import Failed
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.zerogpu.shared_flags import SharedFlags
from magistral_ui.engines.zerogpu.slices import SliceJob, SlicePiece, Token
from magistral_ui.errors import Value

if TYPE_CHECKING:
    from magistral_ui.engines.zerogpu.placed_model import PlacedModel


class SlicedReply:
    """The side of the page's process. `take` comes from the thread that reads slices, wishes from any."""

    def __init__(self, placed: "PlacedModel", request: GenerationRequest, flags: SharedFlags) -> None:
        """Raises PromptTooLong."""
        self.generation = Generation(on_control=self._heed)
        self._request, self._flags = request, flags
        self._sequence = placed.sequence(request, self.generation)
        self._written: list[Token] = []
        self._place: int | None = None
        self._waiting = True
        self._lock = threading.RLock()

    @property
    def count(self) -> int:
        """Tokens written."""
        return len(self._written)

    @property
    def tokens(self) -> int:
        """Tokens of prompt and reply, which a slice reads first."""
        return len(self._sequence.tokens)

    @property
    def left(self) -> int:
        """Tokens that the reply may still have."""
        return self._sequence.limit - self.count

    @contextmanager
    def slice(self) -> Iterator[tuple[int, int]]:
        """Meanwhile, what the visitor wishes is seen by the process that has the place and the ticket."""
        place, ticket = self._flags.take()
        with self._lock:
            self._place, self._waiting = place, True
        self._heed()
        try:
            yield place, ticket
        finally:
            with self._lock:
                self._place = None
            self._flags.give_back(place)

    def job(self, place: int, ticket: int, seconds: int, now: float, tokens: int | None) -> SliceJob:
        """What the next slice is to write."""
        sequence, params = self._sequence, self._request.params
        written = tuple(self._written)
        return SliceJob(sequence.prompt, params, sequence.limit, written, place, ticket, seconds, now, tokens)

    def take(self, piece: SlicePiece) -> None:
        """Tell what a slice has written; nothing more once the reply has ended."""
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
        """The last event, where there is none yet; what was written stays."""
        with self._lock:
            if not self.generation.ended:
                self._sequence.fail(key, values)

    def cancel(self) -> None:
        """End it now."""
        self.generation.stop()
        with self._lock:
            if not self.generation.ended:
                self._sequence.finish("cancelled")

    def _heed(self) -> None:
        """Hand the visitor's wishes on; who is still waiting for a GPU need not wait to stop."""
        with self._lock:
            stop, place = self.generation.stop_asked, self._place
            if place is not None:
                if stop:
                    self._flags.stop(place)
                if self.generation.answer_now_asked:
                    self._flags.answer(place)
            if stop and self._waiting and not self.generation.ended:
                self._sequence.finish("cancelled")
