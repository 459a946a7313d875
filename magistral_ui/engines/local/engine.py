"""The in-process engine: loads a model in a thread of its own, which then runs it until the engine is closed.

torch is imported in that thread, so that the page is served before it is there.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from magistral_ui.engines.base import Broken, ModelRequest, Ready
from magistral_ui.engines.threaded_engine import ThreadedEngine
from magistral_ui.errors import MagistralUIError

if TYPE_CHECKING:
    from magistral_ui.engines.local.running_model import RunningModel
    from magistral_ui.engines.weights.progress import Report

log = logging.getLogger(__name__)
IMPORTING = threading.RLock()
"""Held while a thread imports the libraries that run models: transformers replaces its own module during its import, so a second
thread that waits for that import (Python 3.11) gets the module from before, which has none of its names."""
LoadLocal = Callable[[ModelRequest, "Report", threading.Event], "RunningModel | None"]


def load(request: ModelRequest, report: "Report", closing: threading.Event) -> "RunningModel | None":
    """As `load_model` does, which imports torch."""
    import_libraries()
    from magistral_ui.engines.local.running_model import load_model

    return load_model(request, report, closing)


def import_libraries() -> None:
    """Import torch and what stands on it, in one thread at a time; any other waits."""
    with IMPORTING:
        from magistral_ui.engines.local import running_model  # noqa: F401


class LocalEngine(ThreadedEngine["RunningModel"]):
    """Runs Magistral, or the demo model, with transformers in this process."""

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        context_length: int | None = None,
        threads: int | None = None,
        revision: str | None = None,
        save_quantized: str = "auto",
        chosen_because: str = "model_chosen_by_hand",
        load: LoadLocal = load,
    ) -> None:
        """`model` is a card's key, a repository or a folder; None leaves the choice to the machine.

        Nothing is imported or read before `start`. `context_length` bounds prompt and reply together, in tokens.
        `revision` is the repository's. `save_quantized` is a folder for a quantized copy, which is read instead next time;
        `auto` keeps one beside the Hub's cache if there is plenty of room, and `no` keeps none. `load` runs in the engine's
        thread; None from it: this engine runs no model.
        """
        super().__init__(
            ModelRequest(
                model,
                device,
                precision,
                context_length,
                threads,
                revision,
                save_quantized,
                chosen_because=chosen_because,
            )
        )
        self._load = load

    def _load_and_run(self) -> None:
        try:
            running = self._load(self.request, self._report, self._closing)
        except MagistralUIError as error:
            self._status = Broken(error.message.key, error.message.values)
            return
        except Exception as error:
            log.error("the model could not be loaded", exc_info=error)
            self._status = Broken("model_error", {"reason": type(error).__name__})
            return
        if running is None:
            return
        self._running = running
        self._status = Ready(running.info)
        if self._closing.is_set():  # `close` may have run before there was anything to close
            running.close()
        try:
            running.run()
        finally:
            self._status = Broken("engine_closed")


def open_local(request: ModelRequest, load: LoadLocal = load) -> LocalEngine:
    settings = asdict(request)
    del settings["kv_type"]  # only llama.cpp quantizes keys and values
    return LocalEngine(**settings, load=load)
