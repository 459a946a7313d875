"""Keeps replies that wait until their model is loaded again, and lets them be stopped meanwhile; it loads none."""

import threading
from collections.abc import Callable

from magistral_ui.chat.events import Failed, Finished
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import MagistralUIError, Message

Submit = Callable[[GenerationRequest, Generation], object]


class WaitingReplies:
    """Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[GenerationRequest, Generation]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: GenerationRequest) -> Generation:
        generation = Generation(on_control=self._cancel_stopped)
        with self._lock:
            self._waiting.append((request, generation))
        return generation

    def submit_to(self, submit: Submit) -> None:
        """Begin all replies; one that is refused ends with the reason."""
        for request, generation in self._take():
            try:
                submit(request, generation)
            except MagistralUIError as error:
                generation.put(Failed(error.message.key, error.message.values))

    def fail(self, reason: Message) -> None:
        for _, generation in self._take():
            generation.put(Failed(reason.key, reason.values))

    def cancel(self) -> None:
        for _, generation in self._take():
            generation.put(Finished("cancelled"))

    def _take(self) -> list[tuple[GenerationRequest, Generation]]:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return [each for each in waiting if not each[1].ended]

    def _cancel_stopped(self) -> None:
        with self._lock:
            stopped = [generation for _, generation in self._waiting if generation.stop_requested]
            self._waiting = [each for each in self._waiting if each[1] not in stopped]
        for generation in stopped:
            generation.put(Finished("cancelled"))
