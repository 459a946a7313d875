"""The engine on ZeroGPU: asks for the GPU slice by slice, and emits each reply as its tokens arrive.

How tokens are chosen is left to the forked process. Each reply has a thread here, which waits for its slices.

Errors of the spaces package are told apart by their titles and words, those of spaces 0.51.3, zero/client.py and
zero/wrappers.py; they are raised as gradio.Error.
"""

import contextvars
import logging
import multiprocessing
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from magistral_ui.chat.events import Queued
from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Measure, ModelRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.zerogpu.slices import SharedFlags, SlicedReply, SliceEstimate, SliceJob, SlicePiece
from magistral_ui.errors import MagistralUIError, Message, NotReady, QueueFull
from magistral_ui.models.cards import ModelCard, guess_card

if TYPE_CHECKING:
    from magistral_ui.engines.zerogpu.worker import PlacedModel

log = logging.getLogger(__name__)

MAX_REPLIES = 64
"""Replies that wait or are being written, for each of which there is a place in shared memory."""
MAX_EMPTY_SLICES = 3
"""Slices in a row that may write nothing."""
KILL_TIMEOUT = 1.0
"""Seconds that a killed process may take to release what it held, and a thread to notice."""

QUOTA_LEFT = re.compile(r"\((\d+)s requested vs\. (-?\d+)s left\)")
MAX_QUOTA_RATE = 4.0
"""What a second on a card costs of a quota at most: 2 seconds on a whole card, 1.5 on some others, with room for more."""
QUOTA_WAIT = re.compile(r"Try again in ([^.]+)\.")

Decorate = Callable[..., Any]
"""`spaces.GPU`, or what behaves like it."""


class ZeroGPUEngine:
    """Runs a model where a GPU is lent for one call at a time; `engines/base.py` says what the methods do."""

    def __init__(
        self,
        model: str | None = None,
        *,
        decorate: Decorate,
        context_length: int | None = None,
        revision: str | None = None,
        tokens_a_slice: int | None = None,
    ) -> None:
        """`decorate` is `spaces.GPU`. `tokens_a_slice` limits a slice in addition to its time."""
        self._request = ModelRequest(model, context_length=context_length, revision=revision)
        self._decorate, self._tokens = decorate, tokens_a_slice
        self._guess = guess_card(model)
        self._status: EngineStatus = Loading()
        self._placed: PlacedModel | None = None
        self._flags = SharedFlags(MAX_REPLIES)
        self._pace = SliceEstimate(tokens=tokens_a_slice)
        self._ask: Callable[[SliceJob], Iterator[SlicePiece]] | None = None
        self._replies: dict[SlicedReply, threading.Thread] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def card(self) -> ModelCard:
        return self._placed.card if self._placed else self._guess

    def start(self) -> None:
        """Load and place the model in this thread, before the page is served (see `place_model`). A second call does nothing."""
        if self._placed is not None or self._closed:
            return
        try:
            from magistral_ui.engines.zerogpu.worker import place_model

            self._placed = place_model(self._request, self._report, self._flags)
        except MagistralUIError as error:
            self._status = Broken(error.message.key, error.message.values)
            log.error("the model could not be loaded", exc_info=error)
            return
        except Exception as error:
            log.error("the model could not be loaded", exc_info=error)
            self._status = Broken("model_error", {"reason": type(error).__name__})
            return
        self._pace = SliceEstimate(self._placed.weights, self._tokens)
        self._ask = self._decorate(self._placed.write, duration=lambda job: job.seconds)
        self._status = Ready(self._placed.info)

    def status(self) -> EngineStatus:
        return self._status

    def retry(self) -> None:
        """Does nothing: weights can be placed at the start only."""

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        return self._ready().measure(prompt, visitor)

    def submit(self, request: GenerationRequest) -> Generation:
        """Begin a reply. Its thread keeps the context of the request being served, by whose visitor ZeroGPU counts."""
        placed = self._ready()
        with self._lock:
            if self._closed:
                raise NotReady
            if len(self._replies) >= MAX_REPLIES:
                raise QueueFull(limit=MAX_REPLIES)
            reply = SlicedReply(placed, request, self._flags)
            reply.generation.put(Queued(0))
            run = contextvars.copy_context().run
            self._replies[reply] = threading.Thread(target=run, args=(self._write, reply), name="reply", daemon=True)
            self._replies[reply].start()
        return reply.generation

    def forget(self, visitor: str) -> None:
        if self._placed is not None:
            self._placed.forget(visitor)

    def close(self) -> None:
        """Stop all generations, and end the processes that were forked for them: some wait for another call."""
        with self._lock:
            self._closed = True
            left = dict(self._replies)
        for reply in left:
            reply.cancel()
        forked = multiprocessing.active_children()
        for end in (BaseProcess.kill, partial(BaseProcess.join, timeout=KILL_TIMEOUT)):
            for process in forked:
                with suppress(ValueError):  # whoever started it has closed it already
                    end(process)
        for writer in left.values():  # outside ZeroGPU they compute in this process
            writer.join(KILL_TIMEOUT)
        self._status = Broken("engine_closed")

    def _ready(self) -> "PlacedModel":
        if self._placed is None or not isinstance(self._status, Ready):
            raise NotReady
        return self._placed

    def _report(self, status: Loading) -> None:
        self._status = status

    def _write(self, reply: SlicedReply) -> None:
        try:
            self._slices(reply)
        except Exception as error:
            log.error("a request failed", exc_info=error)
            reply.fail("generation_failed")
        finally:
            with self._lock:
                del self._replies[reply]

    def _slices(self, reply: SlicedReply) -> None:
        max_seconds, empty = None, 0
        while not reply.generation.ended:
            seconds = self._pace.seconds(reply.tokens, reply.left)
            seconds = seconds if max_seconds is None else min(seconds, max_seconds)
            before = reply.count
            failure = self._slice(reply, seconds)
            if reply.generation.ended:
                return
            refusal = gpu_refusal(failure) if failure is not None else None
            empty = 0 if reply.count > before else empty + 1
            if refusal is None or (refusal.aborted and not empty):
                if empty:
                    self._pace.missed(seconds)
                if empty >= MAX_EMPTY_SLICES:
                    reply.fail("gpu_taken_away")
                continue
            log.warning("no GPU: %s", refusal.key, exc_info=failure if refusal.unknown else None)
            max_seconds = refusal.granted(seconds)
            if empty > 1:  # refused twice in a row: the price of a second was misread
                max_seconds = min(max_seconds, seconds // 2)
            if not self._pace.is_of_use(max_seconds) or empty >= MAX_EMPTY_SLICES:
                reply.fail(refusal.key, refusal.values)

    def _slice(self, reply: SlicedReply, seconds: int) -> BaseException | None:
        """One call on the GPU; returns what went wrong."""
        assert self._ask is not None
        first: float | None = None
        last, tokens = 0.0, 0
        with reply.slice() as (place, ticket):
            job = reply.job(place, ticket, seconds, time.time(), self._tokens)
            try:
                for piece in self._ask(job):
                    reply.take(piece)
                    if piece.tokens:
                        first, last, tokens = first or piece.seconds, piece.seconds, tokens + len(piece.tokens)
            except Exception as error:
                return error
        if first is not None:
            self._pace.learn(first, last, tokens)
        return None


@dataclass(frozen=True, slots=True)
class GpuRefusal(Message):
    """Why there is no GPU, or no longer."""

    requested: int | None = None
    """Seconds asked for, as the quota counts them: on some cards each costs more than one."""
    left: int | None = None
    """Seconds left of the quota, counted in the same way."""
    too_long: bool = False
    """Whether fewer seconds may be given."""
    unknown: bool = False
    """Whether the error is not one of the package's own."""
    aborted: bool = False
    """Whether the process was killed, mostly because its time was over."""

    def granted(self, asked: int) -> int:
        """Seconds worth asking for after `asked` were refused; 0 or less if none are."""
        if self.too_long:
            return asked // 2
        if self.left is None or not self.requested:
            return 0
        costs = self.requested / asked
        return int((self.left - 1) / (costs if 1.0 <= costs <= MAX_QUOTA_RATE else 1.0))


def gpu_refusal(error: BaseException) -> GpuRefusal:
    """What `error` means for the visitor."""
    title, message = str(getattr(error, "title", "")), str(getattr(error, "message", error))
    if title == "ZeroGPU quota exceeded":
        return _over_quota(message)
    if title == "ZeroGPU pending credits exceeded":
        return GpuRefusal("gpu_quota_gone")
    if title == "ZeroGPU illegal duration":
        return GpuRefusal("gpu_busy", too_long=True)
    if title in ("ZeroGPU queue timeout", "ZeroGPU client error"):  # no card in time, or an expired token
        return GpuRefusal("gpu_busy")
    if title == "ZeroGPU worker error":
        aborted = message == "GPU task aborted"
        return GpuRefusal("gpu_taken_away" if aborted else "generation_failed", aborted=aborted, unknown=not aborted)
    return GpuRefusal("gpu_busy", unknown=True)


def _over_quota(message: str) -> GpuRefusal:
    if "No GPU was available" in message:
        return GpuRefusal("gpu_busy")
    if "GPU limit" in message:
        return GpuRefusal("gpu_quota_gone")
    left, wait = QUOTA_LEFT.search(message), QUOTA_WAIT.search(message)
    if wait is None:
        return GpuRefusal("gpu_quota_gone")
    requested, remaining = (int(left[1]), int(left[2])) if left else (None, None)
    return GpuRefusal("gpu_quota_spent", {"wait": wait[1]}, requested, remaining)
