"""The interface between the page and what runs a model: requests go in, generations come out. It runs nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from magistral_ui.chat.prompt import Prompt, PromptChoices
from magistral_ui.chat.reply import Provenance, Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import Message
from magistral_ui.models.cards import ModelCard, find_card
from magistral_ui.models.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What the operator asked for; None and `auto` let the machine decide."""

    model: str | None = None
    """A card's key, a repository or a folder; `auto`: the best for this machine; None: the best that is already downloaded."""
    device: str = "auto"
    precision: str = "auto"
    context_length: int | None = None
    threads: int | None = None
    revision: str | None = None
    save_quantized: str = "auto"
    """`auto`, `no`, or a folder."""
    kv_type: str = "auto"
    """How a GGUF engine keeps keys and values: `f16`, `q8_0`, or `auto`, which the memory plan decides."""
    chosen_because: str = "model_chosen_by_hand"
    """Key of the sentence that says why this model runs."""

    @property
    def shown_name(self) -> str:
        """The model's name, as far as it is known before it is loaded."""
        card = find_card(self.model) if self.model else None
        return card.name if card else self.model or ""

    @property
    def repository(self) -> str | None:
        """Where the model's files come from, or its folder's name."""
        card = find_card(self.model) if self.model else None
        return card.repository if card else self.model

    def with_model(self, model: str, precision: str, context_length: int | None) -> "ModelRequest":
        """The same for another model: the device, threads and copies stay; a revision is of one repository only."""
        revision = self.revision if model == self.model else None
        return replace(
            self,
            model=model,
            precision=precision,
            context_length=context_length,
            revision=revision,
            chosen_because="model_chosen_by_hand",
        )


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to write. `params.seed` is set; `visitor` is an opaque key: cache reuse stays within it.

    Fairness counts parties: what stands before the key's first slash, or all of it.
    """

    prompt: Prompt
    params: SamplingParams
    visitor: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded, as a reply's provenance and the page's model panel show it."""

    name: str
    source: str
    """Repository or folder name."""
    precision: str
    """`float32`, `bfloat16`, `nf4` or `int8`."""
    device: str
    context_length: int
    """How many tokens of prompt and reply together fit here."""
    parameters: int = 0
    revision: str = ""
    chosen_because: str = "model_chosen_by_hand"
    """Key of the sentence that says why this model runs: it was chosen, it fits the GPU, or there is no GPU."""
    engine: str = "transformers"
    """The library or server that runs it, by its usual name."""
    plan: MemoryPlan | None = None
    """How the device's memory is divided; `weights` is measured."""
    notices: tuple[Message, ...] = ()
    """What could be better on this machine, each with its remedy: a GPU that cannot be used, a slow processor."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """What the page offers but this engine cannot do → key of the sentence that says why.

    Names are those of sampling parameters, and `continue`, `answer_again`, `answer_now`, `keep_reasoning`.
    """


Stage = Literal[
    "waiting", "starting", "restarting", "server", "downloading", "reading", "quantizing", "saving", "warming_up"
]


@dataclass(frozen=True, slots=True)
class Loading:
    """Not ready yet. `done` and `total` are bytes; a total of 0 is unknown. `waiting`: for the replies of the model before;
    `restarting`: llama.cpp, after a crash."""

    stage: Stage = "starting"
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    notices: tuple[Message, ...] = ()
    """As in ModelInfo, as soon as they are known."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine serves requests."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The model's memory is free; the next request loads it again, and its reply waits for that."""

    info: ModelInfo
    """What was loaded, and will be."""


@dataclass(frozen=True, slots=True)
class Broken(Message):
    """Loading failed, with the reason and the remedy; `retry` may help."""


EngineStatus = Loading | Ready | Unloaded | Broken


def info_of(status: EngineStatus) -> ModelInfo | None:
    """What writes a reply that is asked for now; None while no reply can be asked for."""
    return status.info if isinstance(status, Ready | Unloaded) else None


@dataclass(frozen=True, slots=True)
class Measure:
    """What a prompt costs, in tokens, without running the model."""

    total: int
    system: int
    per_message: dict[int, int]
    """Message id → tokens of its text, images, answer and kept reasoning together."""
    reasoning: dict[int, int]
    """Message id → tokens of its reasoning, kept or not."""
    images: dict[str, int]
    reused: int = 0
    """Tokens at the start of the prompt that the visitor's cache already holds."""
    estimated: bool = False
    """Whether part of it was estimated from lengths, because the model's tokenizer was not available."""


class Engine(Protocol):
    """Runs one model. All methods may be called from any thread and return at once (`measure`: milliseconds)."""

    @property
    def card(self) -> ModelCard:
        """The model that runs, or will run once it is loaded."""

    def status(self) -> EngineStatus:
        """Loading progress, readiness, or why loading failed."""

    def retry(self) -> None:
        """Load again after a failure; does nothing in any other state."""

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        """What `prompt` costs. Raises NotReady before the tokenizer is loaded."""

    def submit(self, request: GenerationRequest) -> Generation:
        """Start a reply. Raises NotReady, QueueFull or PromptTooLong; a later failure is the reply's last event."""

    def forget(self, visitor: str) -> None:
        """Drop everything cached for a visitor's conversations."""

    def close(self) -> None:
        """Stop all generations and free the device; returns once that is done."""


def provenance_of(engine: Engine) -> Provenance:
    """What would write a reply now; only its name if the model is not loaded."""
    info = info_of(engine.status())
    if info is None:
        return Provenance(model=engine.card.name)
    return Provenance(info.name, info.source, info.revision, info.precision, info.device, info.engine)


def closes_reasoning(engine: Engine) -> bool:
    """Whether the engine can close reasoning when a budget is spent."""
    info = info_of(engine.status())
    return info is None or "reasoning_budget" not in info.missing


def reply_provenance(engine: Engine, prompt: Prompt, choices: PromptChoices, before: Reply | None) -> Provenance:
    """The provenance of a reply that resumes `before`."""
    source = before.provenance if before else None
    return replace(
        provenance_of(engine),
        instructions=choices.instructions,
        system_prompt=choices.system_prompt,
        keep_reasoning=choices.keep_reasoning,
        prompt=prompt.digest,
        begun_reasoning=len(before.reasoning) if before else 0,
        begun_answer=len(before.answer) if before else 0,
        begun_closed=before.reasoning_closed if before else False,
        edited=bool(source and source.edited),
    )
