"""What the doctor knows of an installation and a machine, as plain values; found by `survey.py`, or made up by a test.

Sizes are bytes. A part is None where it does not apply or could not be found out; then `failures` says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from magistral_ui.errors import Message

Part = TypeVar("Part")
Capability = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator wants to have checked, as flags or MAGISTRAL_UI_ variables say."""

    model: str | None = None
    device: str = "auto"
    precision: str = "auto"
    full: bool = False
    host: str = "127.0.0.1"
    port: int = 7860
    data_dir: str | None = None


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """One library of the requirements."""

    name: str
    version: str = ""
    """Empty: it is not installed."""
    wanted: str = ""
    """The versions that the requirements allow, as pip writes them; empty: an extra."""
    fits: bool = True
    error: str = ""
    """Why it cannot be imported."""
    also: str = ""
    """Another version of it that is installed beside."""
    lacks: str = ""
    """What it requires and is not there in such a version, as `triton==3.7.0`."""
    instead: str = ""
    """What is installed of that; empty: nothing."""

    @property
    def command(self) -> str:
        return f'pip install "{self.name}{self.wanted}"'

    @property
    def command_again(self) -> str:
        """Installs it once more, and nothing else that works; a torch from the index that it came from."""
        _, _, build = self.version.partition("+")
        if self.name == "torch" and build:
            found = f"torch=={self.version} --index-url https://download.pytorch.org/whl/{build}"
            return f"pip install --force-reinstall --no-deps {found}"
        return self.command.replace("install", "install --force-reinstall --no-deps", 1)


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """The computer, without its graphics cards."""

    python: str = ""
    system: str = ""
    processor: str = ""
    architecture: str = ""
    cores: int = 0
    memory: int = 0
    free: int = 0
    instructions: tuple[str, ...] = ()
    """Of AVX2, AVX-512 and AVX512-BF16, those that the processor has, as far as the system tells."""
    zerogpu_granted: int | None = None
    """Seconds that the app would ask for on ZeroGPU if 61 of the quota are left and each costs 2; None elsewhere."""
    bits: int = 64
    """Of this Python's addresses."""
    environment: str = ""
    """`venv`, `conda`, or `system` for libraries that are shared with other programs."""
    pip: bool = True
    has_torch: bool = True
    """Whether there are builds of torch for this system."""
    limit: int | None = None
    """What a container or a service may use of the memory; None: all of it."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """A graphics card as torch sees it."""

    name: str
    free: int = 0
    total: int = 0
    capability: Capability | None = None


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """torch and the device that it would use."""

    version: str = ""
    cuda: str = ""
    """The CUDA or ROCm version that it was built for; empty for a CPU build."""
    driver: str = ""
    present: tuple[str, ...] = ()
    """The machine's graphics cards, whether or not torch can use them."""
    type: str = "cpu"
    """`cuda`, `mps` or `cpu`."""
    cards: tuple[CardFacts, ...] = ()
    hindrance: Message | None = None
    """Why a graphics card that is present cannot be used."""
    precisions: tuple[str, ...] = ()
    """Those to choose from, the most exact first."""
    fast_nf4: bool = False
    """Whether the processor has the instructions that nf4 needs there."""
    threads: int = 0
    fused: bool = True
    """Whether attention is fused."""
    triton: str = ""
    compiler: str = ""

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        return tuple(each.capability for each in self.cards if each.capability)


@dataclass(frozen=True, slots=True)
class LlamaFacts:
    """llama.cpp and the device that it would use."""

    version: str = ""
    backend: str = "CPU"
    cards: tuple[CardFacts, ...] = ()
    hindrance: Message | None = None

    @property
    def on_gpu(self) -> bool:
        return bool(self.cards)


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """Disks and folders; folders as a person may read them, with `~` for the home."""

    cache: str = ""
    cache_free: int = 0
    cache_problem: str = ""
    """Why nothing can be written there."""
    data: str = ""
    data_free: int = 0
    data_problem: str = ""
    temporary: str = ""
    """The system's folder for temporary files, in which uploads are kept."""
    temporary_free: int = 0
    models: tuple[str, ...] = ()
    """Complete models, by repository."""
    partial: int = 0
    """Downloads that were begun."""
    partial_bytes: int = 0
    copies: int = 0
    """Quantized copies."""
    copies_bytes: int = 0
    damaged: tuple[Message, ...] = ()
    symlinks: bool = True
    """Whether the cache's file system has symbolic links."""
    twice_bytes: int = 0
    """Bytes of models that are there as a blob and as a file of a snapshot."""


@dataclass(frozen=True, slots=True)
class HubFacts:
    """The way to the Hugging Face Hub."""

    offline: bool = False
    custom: bool = False
    """Whether HF_ENDPOINT names another host."""
    proxy: bool = False
    token: str = "none"
    """`none`, `accepted`, `refused`, or `unknown` where the Hub could not be asked."""
    problem: Message | None = None
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class PaceFacts:
    """Seconds of a decode step, and prompt tokens a second, of that many sequences together."""

    sequences: int
    step: float
    prefill: float


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the local engine did with a model on this machine."""

    model: str = ""
    """A card's key; `folder` for any other."""
    missing: Message | None = None
    """Why the model that was asked for could not be taken."""
    precision: str = ""
    device: str = ""
    layers: int = 0
    all_layers: int = 0
    differences: Mapping[str, float] = field(default_factory=dict)
    """Largest difference from transformers' logits ÷ their standard deviation, by kind of forward."""
    failure: str = ""
    """Why a sampled reply failed, if it did."""
    reply_tokens: int = 0
    paces: tuple[PaceFacts, ...] = ()
    cudnn: bool = False
    """Whether torch may choose cuDNN's attention now that the engine is set up."""
    overhead: int = 0
    """Bytes that the allocators hold beside weights, keys and values."""
    planned_overhead: int = 0
    kv_planned: int = 0
    kv_possible: int = 0
    """Bytes that a plan would give to keys and values once all that loading left over is freed."""
    warnings: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """What the engine told its log: which kernels it chose."""


@dataclass(frozen=True, slots=True)
class SafeguardFacts:
    """Whether what the app does against known faults of libraries works with those that are installed."""

    out_of_memory_named: bool = True
    types_refused: bool = True
    position_scale: float = 0.0
    """Largest difference from transformers' logits ÷ their standard deviation, beyond the window of a tiny Ministral 3."""
    split_difference: float | None = None
    """The same for a tiny model over two cards; None where there is one."""
    split_warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LlamaReplyFacts:
    """What llama.cpp did with a GGUF file on this machine."""

    model: str = ""
    quantization: str = ""
    missing: Message | None = None
    right: bool = True
    """Whether the demo model's sum was right; True for any other model."""
    failure: str = ""
    one: float = 0.0
    """Tokens a second of one reply alone."""
    eight: float = 0.0
    """Of eight replies together."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    wanted: Wanted = field(default_factory=Wanted)
    environment: tuple[Message, ...] = ()
    """What the process's environment lacks."""
    variables: tuple[str, ...] = ()
    """Names of the variables that are set and change what the app or its libraries do."""
    packages: tuple[PackageFacts, ...] | None = None
    system: SystemFacts | None = None
    torch: TorchFacts | None = None
    hardware: TorchFacts | None = None
    """What was found before torch failed, if it did."""
    llama: LlamaFacts | None = None
    storage: StorageFacts | None = None
    hub: HubFacts | None = None
    port: Message | None = None
    """Why the page could not be served there."""
    engine: EngineFacts | None = None
    safeguards: SafeguardFacts | None = None
    llama_reply: LlamaReplyFacts | None = None
    failures: Mapping[str, Message] = field(default_factory=dict)
    """By part: why it could not be found out."""
