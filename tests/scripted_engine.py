"""An engine that plays given events instead of running a model: the page's tests use it; it understands no prompt."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from magistral_ui.chat.events import LAST, Event, Finished, Reasoning, Usage
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Measure, ModelInfo, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import NotReady
from magistral_ui.models.cards import DEMO, ModelCard

INFO = ModelInfo("Scripted", "script", "float32", "cpu", context_length=8_192, engine="script")


@dataclass(frozen=True, slots=True)
class Pause:
    """In a script: wait so many seconds (a stop ends the wait)."""

    seconds: float


Script = Sequence[Event | Pause]

MAX_REQUESTS_KEPT = 1_000
"""Requests and generations that are remembered."""


class ScriptedEngine:
    """Answers each request with a script: always the same, or what a function of the request gives.

    A script without an end gets `Finished("stop")`. Stop and answer-now are obeyed between its events, and usage is counted.
    """

    def __init__(
        self,
        script: Script | Callable[[GenerationRequest], Script],
        card: ModelCard = DEMO,
        status: EngineStatus | None = None,
    ) -> None:
        self._script, self.card = script, card
        self._status: EngineStatus = status or Ready(INFO)
        self.requests: list[GenerationRequest] = []
        """What was asked for, the latest last."""
        self.generations: list[Generation] = []
        """What came of it, in the same order."""
        self._playing: dict[Generation, threading.Thread] = {}
        self._lock = threading.Lock()

    def status(self) -> EngineStatus:
        """Whatever was last set."""
        return self._status

    def set_status(self, status: EngineStatus) -> None:
        """Play another state of loading."""
        self._status = status

    def retry(self) -> None:
        """Back to loading after a failure."""
        if isinstance(self._status, Broken):
            self._status = Loading()

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        """One token per word, 100 per picture."""
        per_message: dict[int, int] = {}
        reasoning: dict[int, int] = {}
        for turn in prompt.turns:
            if isinstance(turn, UserTurn):
                words = len(turn.text.split()) + 100 * len(turn.images)
            else:
                words = len(turn.answer.split()) + len((turn.reasoning or "").split())
                reasoning[turn.message or 0] = len((turn.reasoning or turn.left_out).split())
            per_message[turn.message or 0] = words
        system = sum(len(part.text.split()) for part in prompt.system)
        images = {image.digest: 100 for image in prompt.images}
        begun = f"{prompt.resume.reasoning or ''} {prompt.resume.answer}".split() if prompt.resume else []
        return Measure(system + sum(per_message.values()) + len(begun), system, per_message, reasoning, images)

    def submit(self, request: GenerationRequest) -> Generation:
        """Play the script in a thread of its own."""
        if not isinstance(self._status, Ready):
            raise NotReady
        script = self._script(request) if callable(self._script) else self._script
        news = threading.Event()
        generation = Generation(on_control=news.set)
        thread = threading.Thread(target=self._play, args=(generation, script, news), daemon=True)
        with self._lock:
            self.requests.append(request)
            self.generations.append(generation)
            del self.requests[:-MAX_REQUESTS_KEPT], self.generations[:-MAX_REQUESTS_KEPT]
            self._playing[generation] = thread
            thread.start()
        return generation

    def forget(self, visitor: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Stop all that plays."""
        with self._lock:
            playing = dict(self._playing)
        for generation, thread in playing.items():
            generation.stop()
            thread.join(timeout=5)

    def _play(self, generation: Generation, script: Script, news: threading.Event) -> None:
        try:
            _put_all(generation, script, news)
        finally:
            with self._lock:
                del self._playing[generation]


def _put_all(generation: Generation, script: Script, news: threading.Event) -> None:
    for step in script:
        if generation.stop_requested:
            break
        if isinstance(step, Pause):
            news.wait(step.seconds)
            news.clear()
            continue
        if isinstance(step, LAST):
            generation.put(replace(step, usage=Usage()))
            return
        if not (isinstance(step, Reasoning) and generation.answer_now_requested):
            generation.put(step)
    generation.put(Finished("cancelled" if generation.stop_requested else "stop"))
