"""Writes one slice of a reply in a process that was forked for it: the same sequence, scheduler and caches, without a thread.

What the fork has copied is used only where no thread of the other process can have held its lock: the model and the vocabulary.
Everything else is made anew, and ends with the slice.
"""

import time
from collections.abc import Iterator

import psutil

from magistral_ui.chat.events import Event, Failed, Finished, FinishReason, Prefilling
from magistral_ui.chat.prompt import Prompt
from magistral_ui.chat.reasoning import TokenReader
from magistral_ui.chat.reasoning_control import ControlTokens
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.local.executor import Executor
from magistral_ui.engines.local.prefix_cache import PrefixCache
from magistral_ui.engines.local.schedule import SchedulerLimits
from magistral_ui.engines.local.scheduler import Scheduler
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.engines.zerogpu.shared_flags import SharedFlags
from magistral_ui.engines.zerogpu.slices import SLICE_MARGIN_SECONDS, SliceJob, SlicePiece, Token

REPORT_INTERVAL = 0.05
"""Seconds between two pieces."""


class Worker:
    """A placed model, and how a slice is written with it. Made before the first fork; `write` runs behind one."""

    def __init__(
        self,
        model: Decoder,
        encoder: Tokenizer,
        image_token: int | None,
        limits: SchedulerLimits,
        budget: int,
        kv_per_token: int,
        flags: SharedFlags,
    ) -> None:
        """`budget` bytes of the device for keys and values."""
        self._model, self._vocabulary, self._image_token = model, _Vocabulary(encoder), image_token
        self._limits, self._budget, self._kv_per_token, self._flags = limits, budget, kv_per_token, flags

    def write(self, job: SliceJob) -> Iterator[SlicePiece]:
        """What comes behind `job.written`, until the reply ends or the time is over."""
        began = max(job.asked_at, psutil.Process().create_time())  # a process that was forked for this slice is younger
        generation = _Watched(self._flags, job)
        request = GenerationRequest(Prompt((), ()), job.params)
        sequence = Sequence(request, job.prompt, generation, self._vocabulary, job.limit)  # type: ignore[arg-type]
        sequence.take_up(job.written)
        cache = PrefixCache(self._model.new_cache, self._budget)
        scheduler = Scheduler(Executor(self._model, cache, self._image_token, self._kv_per_token), self._limits)
        scheduler.submit(sequence)
        last, until, told = None if job.tokens is None else job.tokens, began + job.seconds - SLICE_MARGIN_SECONDS, 0.0
        fresh: list[Token] = []
        while generation.end is None and time.time() < until and last != 0:
            before = sequence.written
            scheduler.step()
            if sequence.written > before:
                fresh.append((sequence.tokens[-1], generation.answered))
                last = None if last is None else last - 1
            now = time.time()
            if now - told >= REPORT_INTERVAL:
                yield SlicePiece(tuple(fresh), now - began, generation.prefilling)
                fresh, generation.prefilling, told = [], None, now
        yield SlicePiece(tuple(fresh), time.time() - began, generation.prefilling, generation.end)


class _Watched(Generation):
    """A reply of which the page's process is told elsewhere: keeps what that process has to know, and sees its wishes."""

    def __init__(self, flags: SharedFlags, job: SliceJob) -> None:
        super().__init__()
        self._flags, self._place, self._ticket = flags, job.place, job.ticket
        self.answered = False
        self.prefilling: Prefilling | None = None
        self.end: FinishReason | Failed | None = None

    def put(self, event: Event) -> None:
        if isinstance(event, Prefilling):
            self.prefilling = event
        elif isinstance(event, Failed):
            self.end = event
        elif isinstance(event, Finished):
            self.end = event.why

    @property
    def stop_asked(self) -> bool:
        return self._flags.read(self._place, self._ticket)[0]

    @property
    def answer_now_asked(self) -> bool:
        self.answered = self._flags.read(self._place, self._ticket)[1]
        return self.answered

    @property
    def ended(self) -> bool:
        return self.end is not None


class _Vocabulary:
    """Of the encoder, what takes no lock; what a reply was written in is remembered on the other side."""

    def __init__(self, encoder: Tokenizer) -> None:
        self.end_of_turn = encoder.end_of_turn
        self._control = encoder.control_tokens()
        self._encoder = encoder

    def reader(self) -> TokenReader:
        return self._encoder.reader()

    def control_tokens(self) -> ControlTokens:
        return self._control

    def remember_reply(self, *_: object, **__: object) -> None:
        pass
