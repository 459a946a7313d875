"""The engine for GGUF files with the demo model, and requests to it."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Event, Finished
from magistral_ui.chat.prompt import PromptChoices, Resume, compose
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, GenerationRequest, Loading, ModelRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.demo_file import demo_files
from magistral_ui.engines.gguf.devices import find_llama_device
from magistral_ui.engines.gguf.engine import GGUFEngine, LoadGGUF
from magistral_ui.engines.gguf.loading import LoadedGGUF, run_source
from magistral_ui.engines.gguf.scheduler import CompletionScheduler
from magistral_ui.engines.gguf.source import GGUFSource
from magistral_ui.engines.weights.progress import Report
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER
from magistral_ui.models.gguf_file import inspect_gguf, read_mmproj
from magistral_ui.models.gguf_plan import plan_gguf
from tests.engines.contract import all_events
from tests.waiting import until

SUM = "What is 487 + 265?"


def loads(context: int, slots: int) -> LoadGGUF:
    """Loads the demo model with a pool of `context` tokens, whatever would be planned here."""

    def load(request: ModelRequest, report: Report, closing: threading.Event) -> LoadedGGUF:
        model, mmproj = demo_files()
        facts = inspect_gguf(model)[0].with_mmproj(read_mmproj(mmproj))
        source = GGUFSource(DEMO, (model,), facts, mmproj, DEMO_FOLDER / "tekken.json", DEMO.key)
        device = find_llama_device("cpu")
        plan = plan_gguf(facts.shape, facts.weights, device.place)
        plan = replace(plan, context=min(plan.context, context), kv_bytes=context * plan.kv_per_token, slots=slots)
        return run_source(request, source, device, plan, report, closing)

    return load


def opened(context: int = 8_192, slots: int = 4) -> GGUFEngine:
    """The engine, not started."""
    return GGUFEngine(ModelRequest(DEMO.key, threads=1), loads(context, slots))


def loaded(context: int = 8_192, slots: int = 4) -> GGUFEngine:
    engine = opened(context, slots)
    engine.start()
    until(lambda: not isinstance(engine.status(), Loading), "still loading")
    assert isinstance(engine.status(), Ready), engine.status()
    return engine


def request(
    engine: Engine, said: Conversation | str, resume: Resume | None = None, visitor: str = "ann", **params: object
) -> GenerationRequest:
    said = Conversation().say(said) if isinstance(said, str) else said
    prompt = compose(said, engine.card.system(), PromptChoices(), resume)
    return GenerationRequest(prompt, SamplingParams(temperature=0.0, seed=1, max_tokens=300).changed(params), visitor)


def ask(
    engine: Engine, said: Conversation | str, resume: Resume | None = None, visitor: str = "ann", **params: object
) -> list[Event]:
    return all_events(engine.submit(request(engine, said, resume, visitor, **params)))


class ActsAt(Generation):
    """A reply on which somebody acts as soon as it has `count` events of a kind."""

    def __init__(self, kinds: tuple[type, ...], count: int, act: Callable[[Generation], None]) -> None:
        super().__init__()
        self._kinds, self._left, self._act = kinds, count, act

    def put(self, event: Event) -> None:
        super().put(event)
        self._left -= isinstance(event, self._kinds)
        if self._left == 0:
            self._left -= 1
            self._act(self)


def finished(events: list[Event]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished), last
    return last


def preemptions(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry for each preemption of a reply from now on."""
    found: list[None] = []
    preempt = CompletionScheduler._preempt
    monkeypatch.setattr(CompletionScheduler, "_preempt", lambda *args: found.append(preempt(*args)))
    return found
