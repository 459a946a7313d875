"""The engine for GGUF files: a thread that loads a model, runs replies on llama.cpp, and starts it again after a crash.

llama.cpp's server runs in a child process and only turns token ids into token ids: prompts, reasoning and control are ours.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Broken, Loading, Measure, ModelRequest, Ready
from magistral_ui.engines.threaded_engine import ThreadedEngine
from magistral_ui.errors import MagistralUIError, Message, NotReady

if TYPE_CHECKING:
    from magistral_ui.engines.gguf.loading import LoadedGGUF
    from magistral_ui.engines.gguf.running_gguf import RunningGGUF
    from magistral_ui.engines.weights.progress import Report

log = logging.getLogger(__name__)

LoadGGUF = Callable[[ModelRequest, "Report", threading.Event], "LoadedGGUF"]


def load(request: ModelRequest, report: "Report", closing: threading.Event) -> "LoadedGGUF":
    """Import what loads a model only in the engine's thread: the page is served before mistral-common is there."""
    from magistral_ui.engines.gguf.loading import load_gguf

    return load_gguf(request, report, closing)


class GGUFEngine(ThreadedEngine["RunningGGUF"]):
    """Runs a GGUF file with llama.cpp in a child process."""

    def __init__(self, request: ModelRequest, load: LoadGGUF = load) -> None:
        """`load` runs in the engine's thread."""
        super().__init__(request)
        self._load = load

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        """Also while the child is started again, which a prompt's tokens do not depend on."""
        running = self._running
        if running is None:
            raise NotReady
        return running.measure(prompt, visitor)

    def _report(self, status: Loading) -> None:
        crash = self._running.crash if self._running else None
        self._status = replace(status, notices=(*status.notices, crash)) if crash else status

    def _load_and_run(self) -> None:
        from magistral_ui.engines.gguf.running_gguf import RunningGGUF
        from magistral_ui.engines.weights.progress import Cancelled

        running: RunningGGUF | None = None
        broken: Message = Broken("engine_closed")
        try:
            self._running = running = RunningGGUF(self._load(self.request, self._report, self._closing))
            self._serve(running)
        except Cancelled:
            pass
        except MagistralUIError as error:
            broken = error.message
        except Exception as error:
            log.error("the model could not be loaded", exc_info=error)
            broken = Message("model_error", {"reason": type(error).__name__})
        finally:
            self._running = None
            if running is not None:
                running.end(None if self._closing.is_set() else broken)
            self._status = Broken(broken.key, broken.values)

    def _serve(self, running: "RunningGGUF") -> None:
        """Serve until `close`. Each time that the child has crashed, replies that wait do so until it runs again."""
        while True:
            self._status = Ready(running.info)
            if self._closing.is_set():  # `close` may have run before there was anything to close
                running.close()
            running.serve()
            if self._closing.is_set():
                return
            log.warning("llama.cpp has ended, and is started again: %s", running.server.stderr_tail())
            self._report(Loading("restarting", notices=running.info.notices))
            running.restart()
