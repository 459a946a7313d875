"""The engine for GGUF files with the demo model, and requests to it."""

import tempfile
import threading
from functools import cache
from pathlib import Path

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Event, Finished
from magistral_ui.chat.prompt import PromptChoices, Resume, compose
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, GenerationRequest, Loading, ModelInfo, ModelRequest, Ready
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.engine import GGUFEngine, LoadGGUF
from magistral_ui.engines.gguf.loading import LoadedGGUF, run_loaded
from magistral_ui.engines.gguf.source import GGUFSource
from magistral_ui.engines.gguf.supervisor import ServerSettings, Supervisor
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.engines.weights.progress import Report
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from tests.engines.contract import all_events
from tests.servers.gguf_files import write_gguf
from tests.waiting import until

SUM = "What is 487 + 265?"
KEPT: list[tempfile.TemporaryDirectory[str]] = []


@cache
def demo_files() -> Path:
    """A folder with the demo model's GGUF file and projector."""
    KEPT.append(tempfile.TemporaryDirectory())
    folder = Path(KEPT[0].name)
    write_gguf(folder)
    return folder


def loads(context: int = 8_192, slots: int = 4) -> LoadGGUF:
    """Loads the demo model with a pool of `context` tokens."""

    def load(request: ModelRequest, report: Report, closing: threading.Event) -> LoadedGGUF:
        folder, card = demo_files(), inspect_folder(DEMO_FOLDER).card
        model, mmproj = folder / "model.gguf", folder / "mmproj.gguf"
        settings = ServerSettings(model, mmproj, context=context, slots=slots, threads=1, warm_up=False)
        supervisor = Supervisor(settings, report, closing)
        tekken = DEMO_FOLDER / "tekken.json"
        source = GGUFSource(card, (model,), None, mmproj, tekken, "demo")  # type: ignore[arg-type]
        info = ModelInfo(card.name, "demo", "BF16", "CPU", card.context_length, engine="llama.cpp")
        tokenizer = Tokenizer(tekken, card, card.system())
        device = LlamaDevice("cpu", "CPU", "CPU", 0, 0)
        return run_loaded(info, source, device, tokenizer, supervisor, supervisor.start(), settings)

    return load


def opened(context: int = 8_192, slots: int = 4) -> GGUFEngine:
    """The engine, not started."""
    return GGUFEngine(ModelRequest("demo"), loads(context, slots))


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


def finished(events: list[Event]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished), last
    return last
