"""The one seam between the page and what runs a model: requests go in, generations come out; it runs nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from magistral_ui.chat.prompt import Prompt
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import Message
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.memory import MemoryPlan


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
    """What was loaded, as an answer's provenance and the page's model panel show it."""

    name: str
    source: str
    """Repository or folder name."""
    precision: str
    """`float32`, `bfloat16`, `nf4` or `int8`."""
    device: str
    context_length: int
    """Tokens of prompt and reply together that fit here."""
    parameters: int = 0
    revision: str = ""
    chosen_because: str = "model_chosen_by_hand"
    """Key of the sentence that says why this model runs here: by hand, because a GPU fits it, or for want of one."""
    engine: str = "transformers"
    """What runs it, by the name that people know: a library or a server."""
    plan: MemoryPlan | None = None
    """How the device's bytes are shared out; `weights` is measured."""
    notices: tuple[Message, ...] = ()
    """What is not as it could be on this machine, each with its remedy: a card that cannot be used, a slow processor."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """What the page offers and this engine cannot do → key of the sentence that says why.

    Names are those of sampling parameters, and `continue`, `answer_again`, `answer_now`, `keep_reasoning`.
    """


Stage = Literal["starting", "server", "downloading", "reading", "quantizing", "saving", "warming_up"]


@dataclass(frozen=True, slots=True)
class Loading:
    """Not ready yet; `done` and `total` are bytes (total 0: not known)."""

    stage: Stage = "starting"
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    notices: tuple[Message, ...] = ()
    """As in ModelInfo, as soon as they are known."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Requests are served."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class Broken(Message):
    """Loading failed, with the reason and the remedy; `retry` may help."""


EngineStatus = Loading | Ready | Broken


@dataclass(frozen=True, slots=True)
class Measure:
    """What a prompt costs, in tokens, without running the model."""

    total: int
    system: int
    per_message: dict[int, int]
    """Message id → tokens of its text, pictures, answer and kept reasoning together."""
    reasoning: dict[int, int]
    """Message id → tokens of its reasoning, whether or not it is kept."""
    images: dict[str, int]
    """Picture digest → tokens."""
    reused: int = 0
    """Tokens at the prompt's beginning that the visitor's cache holds already."""
    estimated: bool = False
    """Whether a part of it was reckoned from lengths, for want of the model's tokenizer."""


class Engine(Protocol):
    """Runs one model. All methods may be called from any thread and return at once (`measure`: milliseconds)."""

    @property
    def card(self) -> ModelCard:
        """The model that is run, or will be once it is loaded."""

    def status(self) -> EngineStatus:
        """How far loading is, or that it is done, or why it failed."""

    def retry(self) -> None:
        """Load again after a failure; nothing happens in any other state."""

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        """What `prompt` costs; NotReady before the tokenizer is loaded."""

    def submit(self, request: GenerationRequest) -> Generation:
        """Begin a reply. Raises NotReady, QueueFull or PromptTooLong; later failures are the reply's last event."""

    def forget(self, visitor: str) -> None:
        """Drop whatever is kept of a visitor's conversations to make their next turn faster."""

    def close(self) -> None:
        """Stop all generations and free the device; returns when that is done."""
