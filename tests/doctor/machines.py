"""Made-up machines for the doctor's checks: an ordinary computer, and what is different on others."""

from dataclasses import replace
from typing import Any

from magistral_ui.doctor.facts import (
    CardFacts,
    EngineFacts,
    Facts,
    HubFacts,
    LlamaFacts,
    LlamaReplyFacts,
    PackageFacts,
    SafeguardFacts,
    StorageFacts,
    SystemFacts,
    TorchFacts,
)
from magistral_ui.errors import Message

GIB = 2**30
PACKAGES = (
    PackageFacts("torch", "2.13.0", "==2.13.0"),
    PackageFacts("transformers", "5.23.0", "==5.23.*"),
    PackageFacts("gradio", "6.31.0", "==6.31.*"),
    PackageFacts("xllamacpp", "2026.10.11549", "==2026.10.11549"),
    PackageFacts("mcp"),
)
STORAGE = StorageFacts("~/.cache/huggingface/hub", 10**12, data="~/.local/share/magistral-ui", data_free=10**12)
ENGINE = EngineFacts("demo", None, "float32", "CPU", 4, 4, {"prefill": 1e-6, "decode": 2e-6}, reply_tokens=12)
USUAL = Facts(
    packages=PACKAGES,
    system=SystemFacts("CPython 3.12.1", "Linux 6.8", "A processor", "x86_64", 8, 32 * GIB, 24 * GIB, ("AVX2",)),
    torch=TorchFacts("2.13.0", fast_nf4=True, threads=8, precisions=("bfloat16", "nf4")),
    llama=LlamaFacts("2026.10.11549"),
    storage=STORAGE,
    hub=HubFacts(milliseconds=80),
    engine=ENGINE,
    safeguards=SafeguardFacts(),
    llama_reply=LlamaReplyFacts("demo", "BF16", one=900.0, eight=1_200.0),
)
LLAMA_CARD = LlamaFacts("1", "CUDA", (CardFacts("RTX 4090", 20 * GIB, 24 * GIB),))
TOO_OLD = Message("gpu_too_old", {"card": "GTX 1080", "found": "6.1", "needed": "7.5"})


def with_torch(facts: Facts = USUAL, **changes: Any) -> Facts:
    assert facts.torch is not None
    return replace(facts, torch=replace(facts.torch, **changes))


def with_engine(facts: Facts = USUAL, **changes: Any) -> Facts:
    assert facts.engine is not None
    return replace(facts, engine=replace(facts.engine, **changes))


def with_storage(**changes: Any) -> Facts:
    return replace(USUAL, storage=replace(STORAGE, **changes))


def with_safeguards(**changes: Any) -> Facts:
    return replace(USUAL, safeguards=SafeguardFacts(**changes))


def on_card(capability: tuple[int, int] = (8, 9), *, engine: dict[str, Any] | None = None, **changes: Any) -> Facts:
    """With one NVIDIA card, on which the engine held what was planned."""
    card = CardFacts("RTX", 20 * GIB, 24 * GIB, capability)
    facts = with_torch(type="cuda", cards=(card,), fused=capability >= (8, 0), **changes)
    memory = {"overhead": GIB // 2, "planned_overhead": GIB, "kv_planned": 8 * GIB, "kv_possible": 8 * GIB}
    return with_engine(facts, precision="nf4", **{**memory, **(engine or {})})


def on_apple(**changes: Any) -> Facts:
    facts = with_torch(type="mps", cards=(CardFacts("Apple GPU", 20 * GIB, 24 * GIB),))
    metal = LlamaFacts("1", "Metal", (CardFacts("Apple M4", 20 * GIB, 24 * GIB),))
    return replace(with_engine(facts, kv_planned=GIB, kv_possible=GIB), llama=metal, **changes)
