"""The owner's actions on models: list, download, remove, switch, unload. Who is no owner is refused each of them here.

On a page that only this machine reaches, whoever gets in is the owner; on a shared one, only a login that `--admin` names.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from magistral_ui.chat.events import Json
from magistral_ui.client import CLIENT
from magistral_ui.engines.base import Broken, Loading, Ready, Unloaded, info_of
from magistral_ui.errors import BadInput, ModelRefused, ModelSwitching
from magistral_ui.json_log import log_event
from magistral_ui.models.cards import DEMO, FAMILY, RE_UPLOADS, ModelCard, find_card
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from magistral_ui.models.ladder import Candidate, Pace, best_candidate, candidates, no_pace
from magistral_ui.models.memory import PRECISIONS
from magistral_ui.models.shape import ModelShape
from magistral_ui.ui.chat import is_whole
from magistral_ui.ui.model_values import local_entry_value, message_value, model_entry_value

if TYPE_CHECKING:
    from magistral_ui.engines.base import ModelRequest
    from magistral_ui.engines.local.switchable import SwitchableEngine
    from magistral_ui.engines.weights.devices import Device
    from magistral_ui.engines.weights.library import ModelLibrary

log = logging.getLogger(__name__)

MIN_CONTEXT, MAX_CONTEXT = 256, 1_048_576
MAX_IDLE_MINUTES = 7 * 24 * 60
KNOWN_PRECISIONS = ("auto", "float32", *PRECISIONS)


class ModelActions:
    """The actions, as plain functions of what the page sent; each but `list` raises ModelRefused for all but the owner."""

    def __init__(
        self,
        engine: "SwitchableEngine | None" = None,
        open_library: "Callable[[], ModelLibrary] | None" = None,
        *,
        shared: bool = False,
        why_not: str = "models_elsewhere",
    ) -> None:
        """Without an `engine`, nothing can be switched, and `why_not` is the key of the sentence that says so.

        The library is opened when it is first needed: it imports torch, for which the page does not wait.
        """
        self._engine, self._open_library, self._shared, self._why_not = engine, open_library, shared, why_not
        self._paces: dict[tuple[ModelShape, str], float | None] = {}
        """What was timed by this process, also where it cannot be written to disk; None where no estimate was possible."""
        self._unknown: dict[tuple[ModelShape, str], None] = {}
        self._timing: threading.Thread | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop all downloads."""
        if "_library" in self.__dict__ and self._library is not None:
            self._library.close()

    def list(self, _: Json) -> Json:
        return self._value() if self._is_owner() else {"owner": False}

    def download(self, data: Json) -> Json:
        _, library = self._allowed()
        library.download(_key(data))
        log_event("model_download", model=_key(data))
        return self._value()

    def pause(self, data: Json) -> Json:
        self._allowed()[1].pause(_key(data))
        return self._value()

    def remove(self, data: Json) -> Json:
        _, library = self._allowed()
        library.remove(_key(data))
        log_event("model_removed", model=_key(data))
        return self._value()

    def switch(self, data: Json) -> Json:
        """Load a listed model; nothing that was not listed, so that no path of this computer can be tried.

        One that is not complete is downloaded first, while the current one runs; then replies are waited for by default.
        """
        engine, library = self._allowed()
        precision, context, running = data.get("precision") or "auto", data.get("context"), _running(data)
        if (
            not isinstance(precision, str)
            or precision not in KNOWN_PRECISIONS
            or not (context is None or (is_whole(context) and MIN_CONTEXT <= context <= MAX_CONTEXT))
        ):
            raise BadInput
        key = _key(data)
        entries = library.entries()
        named = {name: name for name in (DEMO.key, *RE_UPLOADS)}
        named |= {entry.key: entry.repository for entry in entries}
        if key == self._current_key() and key not in named:  # a folder that the operator named
            named[key] = engine.current.model or key
        if key not in named:
            raise BadInput
        model = key if find_card(key) else named[key]
        request = engine.current.with_model(model, precision, context)
        complete = {DEMO.key, self._current_key(), *(entry.key for entry in entries if entry.state == "complete")}
        if key not in complete:
            self._refuse_unfit(RE_UPLOADS[key].key if key in RE_UPLOADS else key)
            library.download(key, lambda: _switch_later(engine, request, running or "wait"))
            log_event("model_download", model=key)
            return self._value()
        done = engine.switch(request, running)
        return self._value(asks=None if done else "running")

    def _refuse_unfit(self, key: str) -> None:
        """Before gigabytes are downloaded for nothing."""
        for each in self._candidates(self._device_now()):
            if each.card.key == key and not each.plans and each.refusal is not None:
                raise ModelRefused(each.refusal.key, **each.refusal.values)

    def unload(self, data: Json) -> Json:
        done = self._allowed()[0].unload(_running(data))
        return self._value(asks=None if done else "running")

    def idle(self, data: Json) -> Json:
        engine, minutes = self._allowed()[0], data.get("minutes")
        if not is_whole(minutes) or not 0 <= minutes <= MAX_IDLE_MINUTES:
            raise BadInput
        engine.idle_minutes = minutes
        return self._value()

    def _is_owner(self) -> bool:
        return not self._shared or CLIENT.get().admin

    def _allowed(self) -> "tuple[SwitchableEngine, ModelLibrary]":
        if not self._is_owner():
            raise ModelRefused
        if self._engine is None or self._library is None:
            raise ModelRefused(self._why_not)
        return self._engine, self._library

    def _current_key(self) -> str:
        engine = self._engine
        card, asked = (engine.card, engine.current.model) if engine else (DEMO, None)
        return card.key if find_card(card.key) else asked or card.key

    def _value(self, asks: str | None = None) -> Json:
        engine, library = self._engine, self._library
        if engine is None or library is None:
            return {"owner": True, "switchable": False, "why_not": {"key": self._why_not, "values": {}}, "models": []}
        status, entries = engine.status(), library.entries()
        info, device = info_of(status), self._device_now()
        found = {each.card.key: each for each in self._candidates(device)}
        # On a processor the best one is known only once all have been timed.
        best = None if self._unknown else best_candidate([each for each in found.values() if not each.card.demo])
        is_free = engine.card.demo and not any(e.state in ("downloading", "paused") for e in entries)
        failures = [each.failure for each in entries if each.failure is not None]
        failure = engine.last_failure or next(iter(failures), None)
        states: dict[type, str] = {Ready: "ready", Loading: "loading", Unloaded: "unloaded", Broken: "broken"}
        current_key = self._current_key()
        current = {
            "key": current_key,
            "precision": info.precision if info else engine.current.precision,
            "context": info.context_length if info else engine.current.context_length,
            "state": states[type(status)],
        }
        best_key = best.card.key if best else None
        models = [model_entry_value(each, found.get(each.key), device, each.key == best_key) for each in entries]
        known = {each["key"] for each in models}
        for key in dict.fromkeys((DEMO.key, current_key)):
            if key not in known:
                models.append(local_entry_value(key, engine.card if key != DEMO.key else DEMO, found.get(key), device))
        return {
            "owner": True,
            "switchable": True,
            "why_not": None,
            "device": device.name,
            "memory": {"free": device.free, "total": device.total},
            "disk_free": library.disk_free,
            "idle_minutes": engine.idle_minutes,
            "current": current,
            "running": len(engine.running()),
            "asks": asks,
            "failure": message_value(failure),
            "offer": best_key if is_free else None,
            "timing": self._timing is not None and self._timing.is_alive(),
            "models": models,
        }

    @cached_property
    def _library(self) -> "ModelLibrary | None":
        return self._open_library() if self._open_library else None

    @cached_property
    def _device(self) -> "Device":
        from magistral_ui.engines.weights.devices import find_device

        return find_device(self._engine.current.device if self._engine else "auto")

    def _device_now(self) -> "Device":
        from magistral_ui.engines.weights.devices import look_again

        return look_again(self._device)

    def _candidates(self, device: "Device") -> tuple[Candidate, ...]:
        """What fits here once the model that runs has been freed."""
        from magistral_ui.engines.weights.devices import freed, good_context, good_precisions

        place = freed(device, self._engine.held_bytes() if self._engine else 0).place
        precisions, context = good_precisions(device), good_context(device)
        family = candidates(place, precisions, context, self._pace(device), FAMILY)
        return *family, *candidates(place, ("float32",), context, no_pace, (self._demo,))

    @cached_property
    def _demo(self) -> ModelCard:
        """The demo model's card, with the shape that its folder says."""
        return replace(DEMO, shape=inspect_folder(DEMO_FOLDER).shape)

    def _pace(self, device: "Device") -> Pace:
        """What is known; the rest is timed in the background, and known at a later call."""
        from magistral_ui.engines.weights.pace import pace_of

        known = pace_of(device, timed=False)

        def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
            tokens, measured = known(shape, precision)
            if tokens is not None or device.type == "cuda":  # whatever fits there is fast enough
                return tokens, measured
            if (shape, precision) not in self._paces:
                self._unknown[shape, precision] = None
                self._time_soon(device)
            return self._paces.get((shape, precision)), False

        return pace

    def _time_soon(self, device: "Device") -> None:
        def time_now() -> None:
            from magistral_ui.engines.weights.pace import estimated_pace

            for shape, precision in list(self._unknown):
                self._paces[shape, precision] = estimated_pace(shape, precision, device)
                self._unknown.pop((shape, precision), None)

        engine = self._engine
        with self._lock:
            # Timing beside a reply would slow down both, and beside a loaded model there may be no memory for it.
            is_quiet = (
                engine is not None and engine.card.demo and isinstance(engine.status(), Ready) and not engine.running()
            )
            if is_quiet and (self._timing is None or not self._timing.is_alive()):
                self._timing = threading.Thread(target=time_now, name="time models", daemon=True)
                self._timing.start()


def _switch_later(engine: "SwitchableEngine", request: "ModelRequest", running: Any) -> None:
    try:
        engine.switch(request, running)
    except ModelSwitching:
        log.info("another model is being loaded: the downloaded one is not switched to")


def _key(data: Json) -> str:
    key = data.get("key")
    if not isinstance(key, str):
        raise BadInput
    return key


def _running(data: Json) -> Any:
    running = data.get("running")
    if running not in (None, "wait", "stop"):
        raise BadInput
    return running
