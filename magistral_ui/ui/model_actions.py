"""The owner's actions on models: list, download, remove, switch, unload. Everybody else is refused here.

On a page that only this machine reaches, whoever gets in is the owner; on a shared one, or through a proxy, only a login that
`--admin` names.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from magistral_ui.chat.events import Json
from magistral_ui.client import CLIENT
from magistral_ui.engines.base import Broken, Loading, Ready, Unloaded, info_of
from magistral_ui.errors import BadInput, LibraryMissing, Message, ModelRefused, ModelSwitching
from magistral_ui.json_log import log_event
from magistral_ui.models.cards import DEMO, RE_UPLOADS, find_card
from magistral_ui.models.folder import is_repository
from magistral_ui.models.gguf_names import split_name
from magistral_ui.models.gguf_plan import QUANTIZATIONS
from magistral_ui.models.memory import PRECISIONS
from magistral_ui.ui.chat import is_whole
from magistral_ui.ui.model_fit import ModelFit
from magistral_ui.ui.model_values import local_entry_value, message_value, model_entry_value

if TYPE_CHECKING:
    from magistral_ui.engines.base import ModelRequest
    from magistral_ui.engines.switching.switchable import SwitchableEngine
    from magistral_ui.engines.weights.library import LibraryEntry, ModelLibrary

MIN_CONTEXT, MAX_CONTEXT = 256, 1_048_576
MAX_IDLE_MINUTES = 7 * 24 * 60
KNOWN_PRECISIONS = ("auto", "float32", *PRECISIONS, *QUANTIZATIONS)
STATES: dict[type, str] = {Ready: "ready", Loading: "loading", Unloaded: "unloaded", Broken: "broken"}


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

        The library is opened when it is first needed: its imports take a while, for which the page does not wait.
        """
        self._shared, self._why_not = shared, why_not
        self._switchable = (
            SwitchableModels(engine, open_library) if engine is not None and open_library is not None else None
        )

    def close(self) -> None:
        """Stop all downloads, and timing."""
        if self._switchable is not None:
            self._switchable.close()

    def list(self, _: Json) -> Json:
        return self._value() if self._is_owner() else {"owner": False}

    def download(self, data: Json) -> Json:
        key = _key(data)
        self._allowed().download(key)
        log_event("model_download", model=key)
        return self._value()

    def pause(self, data: Json) -> Json:
        self._allowed().library.pause(_key(data))
        return self._value()

    def remove(self, data: Json) -> Json:
        key = _key(data)
        self._allowed().library.remove(key)
        log_event("model_removed", model=key)
        return self._value()

    def switch(self, data: Json) -> Json:
        """Load a listed model; nothing that was not listed, so that no path of this computer can be tried.

        One that is not complete is downloaded first, while the current one runs; then replies are waited for by default.
        """
        models = self._allowed()
        precision, context, running = data.get("precision") or "auto", data.get("context"), _running(data)
        if (
            not isinstance(precision, str)
            or precision not in KNOWN_PRECISIONS
            or not (context is None or (is_whole(context) and MIN_CONTEXT <= context <= MAX_CONTEXT))
        ):
            raise BadInput
        return self._value(asks="running" if not models.switch(_key(data), precision, context, running) else None)

    def unload(self, data: Json) -> Json:
        done = self._allowed().engine.unload(_running(data))
        return self._value(asks=None if done else "running")

    def idle(self, data: Json) -> Json:
        models, minutes = self._allowed(), data.get("minutes")
        if not is_whole(minutes) or not 0 <= minutes <= MAX_IDLE_MINUTES:
            raise BadInput
        models.engine.idle.minutes = minutes
        return self._value()

    def _is_owner(self) -> bool:
        client = CLIENT.get()
        # Without --share, a proxy on this machine would make everybody look like its user.
        return client.admin or not (self._shared or client.forwarded)

    def _allowed(self) -> "SwitchableModels":
        if not self._is_owner():
            raise ModelRefused
        if self._switchable is None:
            raise ModelRefused(self._why_not)
        return self._switchable

    def _value(self, asks: str | None = None) -> Json:
        if self._switchable is None:
            return {"owner": True, "switchable": False, "why_not": {"key": self._why_not, "values": {}}, "models": []}
        return {"owner": True, "switchable": True, "why_not": None, "asks": asks, **self._switchable.value()}


class SwitchableModels:
    """The models of this machine: the one that runs, those on disk, and what fits. It does not know who asks."""

    def __init__(self, engine: "SwitchableEngine", open_library: "Callable[[], ModelLibrary]") -> None:
        self.engine, self._open_library = engine, open_library
        self._fit = ModelFit(engine)
        self._library: ModelLibrary | None = None
        self._lock = threading.Lock()

    @property
    def library(self) -> "ModelLibrary":
        with self._lock:  # its first two users may come at once
            if self._library is None:
                self._library = self._open_library()
            return self._library

    def close(self) -> None:
        self._fit.stop_timing()
        if self._library is not None:
            self._library.close()

    def download(self, key: str) -> None:
        """Begin or resume a download; of a GGUF model only if it fits, since it can be of no other use here."""
        if ":" in key:
            self._fit.look().check(key, "auto", None)
        self.library.download(key)

    def switch(self, key: str, precision: str, context: int | None, running: Any) -> bool:
        """Load a model, after its download if it is not complete. False if the owner must be asked what happens to replies."""
        entries, fit = self.library.entries(), self._fit.look()
        model = self._listed(key, entries)
        chosen = fit.automatic_precision(key) if precision == "auto" else precision
        if (gguf := _gguf_of(key, chosen)) is not None:
            key = model = gguf
            precision = chosen = "auto"
        request = self.engine.current.with_model(model, chosen, context)
        complete = {DEMO.key, self._current_key(), *(entry.key for entry in entries if entry.state == "complete")}
        if key in complete:
            self._fit.stop_timing()
            return self.engine.switch(request, running)
        fit.check(key, precision, context)
        self.library.download(key, lambda: self._switch_later(request, running or "wait"))
        log_event("model_download", model=key)
        return True

    def value(self) -> Json:
        engine, status, entries = self.engine, self.engine.status(), self.library.entries()
        fit, info = self._fit.look(), info_of(status)
        current_key = self._current_key()
        current = {
            "key": current_key,
            "precision": info.precision if info else engine.current.precision,
            "context": info.context_length if info else engine.current.context_length,
            "state": STATES[type(status)],
        }
        models = [model_entry_value(each, fit, entries) for each in entries]
        known = {each["key"] for each in models}
        for key in dict.fromkeys((DEMO.key, current_key)):
            if key not in known:
                # While a GGUF file is loaded, the engine does not know its card yet.
                card = DEMO if key == DEMO.key else None if engine.card.demo else engine.card
                models.append(local_entry_value(key, card, fit))
        is_free = current_key == DEMO.key and not any(e.state in ("downloading", "paused") for e in entries)
        return {
            "device": fit.machine.name,
            "memory": {"free": fit.machine.place.free, "total": fit.machine.place.total},
            "disk_free": self.library.disk_free,
            "idle_minutes": engine.idle.minutes,
            "current": current,
            "running": len(engine.running()),
            "failure": message_value(self._failure(entries)),
            "offer": fit.best if is_free else None,
            "timing": fit.timing,
            "models": models,
        }

    def _failure(self, entries: "Sequence[LibraryEntry]") -> Message | None:
        of_downloads = (each.failure for each in entries if each.failure is not None)
        return self.engine.last_failure or self.engine.notice or next(of_downloads, None)

    def _listed(self, key: str, entries: "Sequence[LibraryEntry]") -> str:
        """What to load for `key`; BadInput for what was never listed."""
        from magistral_ui.engines.weights.gguf_entries import is_known_gguf

        named = {name: name for name in (DEMO.key, *RE_UPLOADS)}
        named |= {entry.key: entry.name for entry in entries}
        if key == self._current_key() and key not in named:  # a folder that the operator named
            named[key] = self.engine.current.model or key
        if key not in named and not is_known_gguf(key):
            raise BadInput
        return key if find_card(key) else named.get(key, key)

    def _current_key(self) -> str:
        card, asked, info = self.engine.card, self.engine.current.model, info_of(self.engine.status())
        source = info.source if info else asked or ""
        repository, quantization = split_name(source)
        if quantization and is_repository(repository):
            return source  # a GGUF model, also where its card was asked for
        return card.key if find_card(card.key) else asked or card.key

    def _switch_later(self, request: "ModelRequest", running: Any) -> None:
        self._fit.stop_timing()
        try:
            self.engine.switch(request, running)
        except ModelSwitching:
            self.engine.notice = Message("model_not_switched", {"model": request.shown_name})
        except LibraryMissing as error:
            self.engine.notice = error.message


def _gguf_of(key: str, precision: str) -> str | None:
    """The GGUF model that is a card's in this precision, if it is one of GGUF files."""
    from magistral_ui.engines.weights.gguf_entries import gguf_way

    card = find_card(key)
    return gguf_way(card, precision) if card is not None and precision in QUANTIZATIONS else None


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
