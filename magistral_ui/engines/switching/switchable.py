"""An engine whose model can be switched, unloaded and loaded again while the page is open; it runs none itself.

Each load has an engine of its own. The one before is closed first, to free its memory; it is loaded again if a load fails.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import (
    Broken,
    EngineStatus,
    GenerationRequest,
    Loading,
    Measure,
    ModelInfo,
    ModelRequest,
    Ready,
    Unloaded,
    info_of,
)
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.sequence import encoded_within
from magistral_ui.engines.switching.idle_watch import IdleWatch
from magistral_ui.engines.switching.open_engine import LoadableEngine, open_engine
from magistral_ui.engines.switching.waiting_replies import WaitingReplies
from magistral_ui.engines.weights.freed_memory import FreedMemory
from magistral_ui.errors import Message, ModelSwitching, NotReady
from magistral_ui.json_log import log_event
from magistral_ui.models.cards import ModelCard, find_card
from magistral_ui.models.folder import AUTO

if TYPE_CHECKING:
    from magistral_ui.engines.local.tokenizer import Tokenizer

Running = Literal["wait", "stop"]
"""What happens to running replies: the switch waits for them, or stops them."""
POLL_SECONDS, CLOSE_TIMEOUT = 0.05, 20.0
"""Seconds between two looks, and for a switch to notice that all is closed: it may have two engines to close."""
OpenEngine = Callable[[ModelRequest], LoadableEngine]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A switch or unload that waits until the running replies have ended."""

    act: Callable[[], None]
    request: ModelRequest | None = None
    """Of a switch; None: the model is to be unloaded."""
    waits: bool = False
    """Whether it waits for replies to end, so that another switch can replace it."""


class SwitchableEngine:
    """Runs one model at a time in this process; `engines/base.py` says what the methods do."""

    def __init__(self, request: ModelRequest, idle_minutes: int = 0, opener: OpenEngine = open_engine) -> None:
        """`idle_minutes` without a reply unload the model; 0: never. Nothing is loaded before `start`."""
        self.current = request
        self.last_failure: Message | None = None
        """Why the last switch failed; None after one that succeeded."""
        self.notice: Message | None = None
        """Why a switch that was asked for was not made; None from the next one on."""
        self._open, self._engine = opener, opener(request)
        self._lock = threading.RLock()
        self._unloaded: tuple[ModelInfo, ModelCard, Tokenizer | None] | None = None
        self._busy = False
        """Whether a thread switches, unloads or loads, or waits for replies before it does."""
        self._needed: tuple[ModelRequest, ...] = ()
        """The model that is being switched to, and the one to go back to if that fails."""
        self._pending: _Pending | None = None
        """What to do once the running replies have ended."""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None  # the last one of `_run`
        self._replies: list[Generation] = []
        self._waiting = WaitingReplies()
        self._memory = FreedMemory()
        self.idle = IdleWatch(idle_minutes, self._is_in_use, self._unload_idle)

    @property
    def card(self) -> ModelCard:
        unloaded = self._unloaded
        return unloaded[1] if unloaded else self._engine.card

    def start(self) -> None:
        """Begin loading; returns at once."""
        self._engine.start()
        self.idle.start(self._closing)

    def status(self) -> EngineStatus:
        with self._lock:
            if self._unloaded is not None and not self._busy:
                return Unloaded(self._unloaded[0])
            status = self._engine.status()
            if not self._busy or isinstance(status, Loading):
                return status
            return Loading("waiting" if self.running() else "starting")

    def retry(self) -> None:
        self._engine.retry()

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        kept = self._kept_tokenizer
        return self._engine.measure(prompt, visitor) if kept is None else kept.measure(prompt, visitor)[0]

    def submit(self, request: GenerationRequest) -> Generation:
        """Start a reply. If the model is unloaded, the reply waits while it is loaded again."""
        self._check_length(request)
        with self._lock:
            self.idle.note_use()
            if self._unloaded is not None and (not self._busy or self._waiting):
                return self._submit_waiting(request)
            if self._busy:
                raise NotReady
            generation = self._engine.submit(request)
            self._replies = [*self.running(), generation]
            return generation

    def repositories_in_use(self) -> set[str]:
        """The repositories whose files are needed, by the current model, loaded or not, or by a switch; and names of folders."""
        info, requests = info_of(self.status()), (self.current, *self._needed)
        found = {self.card.repository, info and info.source, *(each.repository for each in requests)}
        return {name for name in found if name}

    def held_bytes(self) -> int:
        """Bytes of weights, keys and values that unloading would free."""
        status = self._engine.status()
        weights = status.info.plan.weights if isinstance(status, Ready) and status.info.plan else 0
        return weights + self._engine.kv_bytes

    def forget(self, visitor: str) -> None:
        self._engine.forget(visitor)
        if (kept := self._kept_tokenizer) is not None:
            kept.forget(visitor)

    def running(self) -> list[Generation]:
        """The replies that have not ended, including those that wait for the model."""
        return [each for each in self._replies if not each.ended]

    def switch(self, request: ModelRequest, running: Running | None = None) -> bool:
        """Load another model in place of this one; returns at once.

        False if replies are running and `running` does not say what happens to them; nothing has changed then. A switch that
        still waits for replies is replaced. Raises ModelSwitching while another model is being loaded, and LibraryMissing.
        """
        opened = self._open(request)
        return self._begin(running, _Pending(lambda: self._switch(request, opened), request))

    def unload(self, running: Running | None = None) -> bool:
        """Free the model's memory; the same as `switch` otherwise. Does nothing in a state without a model."""
        status = self.status()
        if isinstance(status, Loading):
            raise ModelSwitching
        return True if not isinstance(status, Ready) else self._begin(running, _Pending(self._unload))

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            waiting, self._waiting = self._waiting, WaitingReplies()
            engine, thread = self._engine, self._thread
        waiting.cancel()
        engine.close()
        if thread is not None:
            thread.join(CLOSE_TIMEOUT)

    @property
    def _kept_tokenizer(self) -> "Tokenizer | None":
        return self._unloaded[2] if self._unloaded else None

    def _check_length(self, request: GenerationRequest) -> None:
        """Refuse a prompt that is too long before an unloaded model is loaded for it."""
        if (unloaded := self._unloaded) is not None and unloaded[2] is not None:
            encoded_within(unloaded[0].context_length, unloaded[2], request)

    def _submit_waiting(self, request: GenerationRequest) -> Generation:
        """A reply that waits for the model; with the lock held."""
        generation = self._waiting.add(request)
        self._replies = [*self.running(), generation]
        if not self._busy:
            self._busy = True
            self._run(self._load_again)
        return generation

    def _begin(self, running: Running | None, wanted: _Pending) -> bool:
        with self._lock:
            pending = self._pending
            replaced = pending if wanted.request and pending and pending.waits else None
            if self._closing.is_set() or (self._busy and replaced is None):
                raise ModelSwitching
            replies = self.running()
            if replies and running is None:
                return False
            self._busy, self.notice = True, None
            self._pending = replace(wanted, waits=bool(replies) and running == "wait")
            self._needed = (self._pinned(), *([wanted.request] if wanted.request else []))
            if replaced is None:
                self._run(lambda: self._act_after(replies))
            elif replaced.request and wanted.request:
                names = {"model": replaced.request.shown_name, "other": wanted.request.shown_name}
                self.notice = Message("model_switch_replaced", names)
        for each in replies if running == "stop" else ():
            each.stop()
        return True

    def _act_after(self, replies: list[Generation]) -> None:
        for each in replies:
            while not each.wait(POLL_SECONDS):
                if self._closing.is_set():
                    return
        with self._lock:
            wanted, self._pending = self._pending, None
        if wanted is not None:
            wanted.act()

    def _run(self, act: Callable[[], None]) -> None:
        """Do `act`, for which `_busy` is set already, in a thread of its own."""

        def run() -> None:
            try:
                act()
            finally:
                with self._lock:
                    self._busy, self._pending, self._needed = False, None, ()
                    self.idle.note_use()

        self._thread = threading.Thread(target=run, name="switch model", daemon=True)
        self._thread.start()

    def _switch(self, request: ModelRequest, opened: LoadableEngine) -> None:
        before, self._unloaded = self._pinned(), None
        failure = self._replace_engine(request, opened)
        if failure is not None and not self._closing.is_set():
            self._replace_engine(before, self._open(before))
        self.last_failure = failure
        log_event("model_switched" if failure is None else "model_switch_failed", model=self._engine.card.key)

    def _unload(self) -> None:
        status = self._engine.status()
        if not isinstance(status, Ready):
            return
        kept = status.info, self._engine.card, self._engine.tokenizer
        self.current = self._pinned()
        engine, self._engine = self._engine, self._open(self.current)
        with self._lock:
            self._unloaded = kept
        engine.close()
        engine.wait_closed(self._closing)
        del engine
        self._memory.free()
        log_event("model_unloaded", model=kept[1].key)

    def _pinned(self) -> ModelRequest:
        """The current request, naming the model that it chose: asked again, the machine might choose another."""
        request, card = self._engine.request, self.card
        return replace(request, model=card.key) if request.model in (None, AUTO) and find_card(card.key) else request

    def _load_again(self) -> None:
        """Load the unloaded model for the replies that wait; if that fails, they end with the reason."""
        failure = self._replace_engine(self.current, self._open(self.current))
        with self._lock:
            waiting, self._waiting = self._waiting, WaitingReplies()
            if failure is None:
                self._unloaded = None
        if failure is None:
            waiting.submit_to(self._engine.submit)
        else:
            waiting.fail(failure)
        if failure is not None and self._unloaded is not None:
            self.last_failure = failure
            self._engine = self._open(self.current)  # the next message tries again

    def _replace_engine(self, request: ModelRequest, opened: LoadableEngine) -> Message | None:
        """Close the engine and load `request` in the one that was `opened` for it; the reason if that fails."""
        engine, self._engine = self._engine, opened
        engine.close()
        engine.wait_closed(self._closing)
        del engine
        self._memory.free()
        self.current = request
        self._engine.start()
        while not self._closing.wait(POLL_SECONDS):
            status = self._engine.status()
            if isinstance(status, Ready):
                break
            if isinstance(status, Broken):
                return Message(status.key, status.values)
        else:
            self._engine.close()
        self._memory.freeze_again()
        return None

    def _is_in_use(self) -> bool:
        return bool(self.running()) or isinstance(self.status(), Loading)

    def _unload_idle(self) -> None:
        with suppress(ModelSwitching):
            self.unload()
