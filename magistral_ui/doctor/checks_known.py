"""Checks for known faults of libraries and machines: each is told to be absent, kept away by the app, or present with its remedy.

The app does something against most of them; then what is checked is that this works with what is installed here.
"""

from magistral_ui.doctor.checks import ABSENT, MENDED, Check, Finding, fault, gigabytes, known_part, note, ok
from magistral_ui.doctor.facts import EngineFacts, Facts, SafeguardFacts, StorageFacts, SystemFacts, TorchFacts

CUDNN_FIRST = (9, 10)
"""Major compute capabilities on which torch 2.13 prefers cuDNN's attention."""
MIN_CAPABILITY = (7, 5)
AMPERE = (8, 0)
LIMIT = 0.02
"""Standard deviations by which logits of tiny models in float32 may differ."""
NO_GRAPHS = "not recorded"
"""In the warnings of the engine where CUDA graphs cannot be recorded."""
MAX_SHORTFALL = 0.05
"""Share of the keys' and values' memory that a plan may leave unused."""
NO_FAULT_KEYS = ("gpu_not_nvidia", "gpu_hidden")
"""A card that torch does not run, as those inside processors, or that somebody hid from it: nothing is to be mended."""
BUILD_KEYS = ("gpu_torch_without_cuda", "gpu_driver_old", "gpu_driver_old_or_torch", "gpu_too_new")
QUOTA_LEFT, QUOTA_PRICE = 61, 2


def apple_float64(facts: Facts) -> Finding:
    """Apple's GPU has no float64: a sampled reply would fail."""
    if _torch(facts).type != "mps":
        return ok("", ABSENT)
    found = _engine(facts)
    return fault("doctor_reply_failed", reason=found.failure) if found.failure else ok("", MENDED)


def cudnn_attention(facts: Facts) -> Finding:
    """On H100, B200 and their like, torch would take cuDNN's attention, which builds a plan for each new length."""
    found = _torch(facts)
    if found.type != "cuda" or not any(each[0] in CUDNN_FIRST for each in found.capabilities):
        return ok("", ABSENT)
    return fault("doctor_cudnn") if _engine(facts).cudnn else ok("", MENDED)


def torch_build(facts: Facts) -> Finding:
    """A card that torch cannot use: a build without CUDA, or a driver that is too old for the build."""
    found = _torch(facts)
    if found.hindrance is None or found.hindrance.key == "gpu_too_old":
        return ok("", ABSENT)
    elsewhere = facts.llama is not None and facts.llama.on_gpu and found.hindrance.key not in BUILD_KEYS
    is_note = elsewhere or found.hindrance.key in NO_FAULT_KEYS
    return Finding("note" if is_note else "fault", messages=(found.hindrance,))


def graph_memory(facts: Facts) -> Finding:
    """Recorded decode steps hold more memory than the plan leaves for them."""
    if _torch(facts).type != "cuda":
        return ok("", ABSENT)
    found = _engine(facts)
    value = f"{found.overhead / 2**20:.0f} / {found.planned_overhead / 2**20:.0f} MiB"
    if found.overhead > found.planned_overhead:
        return fault("doctor_graph_memory", value)
    return ok(value, MENDED)


def out_of_memory(facts: Facts) -> Finding:
    """Out of memory while loading, told as damaged files."""
    return ok("", MENDED) if _safeguards(facts).out_of_memory_named else fault("doctor_out_of_memory")


def old_card(facts: Facts) -> Finding:
    """A card below compute capability 7.5, for which bitsandbytes and CUDA 13 have no kernels."""
    found = _torch(facts)
    if found.hindrance is None or found.hindrance.key != "gpu_too_old":
        return ok("", ABSENT)
    return Finding("note" if facts.llama is not None and facts.llama.on_gpu else "fault", messages=(found.hindrance,))


def model_type(facts: Facts) -> Finding:
    """Architectures that would run wrongly: mistral4, and ministral3 without the scale of its positions."""
    found = _safeguards(facts)
    if not found.types_refused:
        return fault("doctor_model_type")
    value = f"{found.position_scale:.1e}"
    if not found.position_scale <= LIMIT:
        return fault("doctor_position_scale", value)
    return ok(value, MENDED)


def apple_memory(facts: Facts) -> Finding:
    """bitsandbytes unpacks whole weights on Apple's GPU: slowly, and into memory that no plan has."""
    if _torch(facts).type != "mps":
        return ok("", ABSENT)
    by_hand = "nf4" in (facts.wanted.precision, facts.engine.precision if facts.engine else "")
    has_llama = facts.llama is not None and facts.llama.on_gpu
    return ok("", MENDED) if has_llama and not by_hand else fault("doctor_apple_memory")


def int8_on_cuda(facts: Facts) -> Finding:
    """Each int8 product waits for the host: a token takes 3 to 7 times as long as in nf4."""
    found = _torch(facts)
    if found.type != "cuda":
        return ok("", ABSENT)
    chosen = "int8" in (facts.wanted.precision, facts.engine.precision if facts.engine else "")
    return fault("doctor_int8") if chosen or "int8" in found.precisions else ok("", MENDED)


def graph_stream(facts: Facts) -> Finding:
    """With several cards, recording on the second one needs a stream of its own."""
    found = _safeguards(facts)
    if found.split_difference is None:
        return ok("", ABSENT)
    told = [each for each in found.split_warnings if NO_GRAPHS in each]
    value = f"{found.split_difference:.1e}"
    if told or not found.split_difference <= LIMIT:
        return fault("doctor_graph_stream", value)
    return ok(value, MENDED)


def before_ampere(facts: Facts) -> Finding:
    """Cards before Ampere have neither bfloat16 arithmetic nor fused attention for it."""
    found = _torch(facts)
    old = [card for card in found.cards if card.capability and MIN_CAPABILITY <= card.capability < AMPERE]
    if found.type != "cuda" or not old:
        return ok("", ABSENT)
    if found.fused and old[0] == found.cards[0]:  # `fused` is the first card's
        return fault("doctor_before_ampere_unplanned")
    return note("doctor_before_ampere", card=old[0].name)


def disk_twice(facts: Facts) -> Finding:
    """Without symbolic links, as on Windows, a download could take twice the disk."""
    storage = known_part(facts, StorageFacts, "storage")
    if storage.twice_bytes:
        return fault("doctor_disk_twice", size=gigabytes(storage.twice_bytes))
    return ok("", ABSENT) if storage.symlinks else note("doctor_no_symlinks")


def slow_nf4(facts: Facts) -> Finding:
    """A processor without AVX512-BF16 takes seconds for a token in nf4."""
    found = _torch(facts)
    if found.type != "cpu" or found.fast_nf4:
        return ok("", ABSENT)
    quantized = {"nf4", "int8"} & {facts.wanted.precision, facts.engine.precision if facts.engine else ""}
    return ok("", MENDED) if facts.llama is not None and not quantized else fault("doctor_slow_nf4")


def plan_order(facts: Facts) -> Finding:
    """A plan that is made before unused memory is given back leaves a shorter context than there is room for."""
    if _torch(facts).type == "cpu":
        return ok("", ABSENT)
    found = _engine(facts)
    short = found.kv_possible - found.kv_planned
    if short > MAX_SHORTFALL * max(found.kv_planned, 1):
        return fault("doctor_plan_order", size=gigabytes(short))
    return ok("", MENDED)


def zerogpu_seconds(facts: Facts) -> Finding:
    """A large GPU on ZeroGPU counts each second twice: what is asked for must fit into what is left of the quota."""
    granted = known_part(facts, SystemFacts, "system").zerogpu_granted
    if granted is None:
        return ok("", ABSENT)
    return ok("", MENDED) if 0 < granted * QUOTA_PRICE <= QUOTA_LEFT else fault("doctor_zerogpu")


def _torch(facts: Facts) -> TorchFacts:
    return known_part(facts, TorchFacts, "torch")


def _engine(facts: Facts) -> EngineFacts:
    return known_part(facts, EngineFacts, "engine")


def _safeguards(facts: Facts) -> SafeguardFacts:
    return known_part(facts, SafeguardFacts, "safeguards")


CHECKS = (
    Check("apple-float64", apple_float64, known=True),
    Check("cudnn-attention", cudnn_attention, known=True),
    Check("torch-build", torch_build, known=True),
    Check("graph-memory", graph_memory, known=True),
    Check("out-of-memory", out_of_memory, known=True),
    Check("old-card", old_card, known=True),
    Check("model-type", model_type, known=True),
    Check("apple-memory", apple_memory, known=True),
    Check("int8-on-cuda", int8_on_cuda, known=True),
    Check("graph-stream", graph_stream, known=True),
    Check("before-ampere", before_ampere, known=True),
    Check("disk-twice", disk_twice, known=True),
    Check("slow-nf4", slow_nf4, known=True),
    Check("plan-order", plan_order, known=True),
    Check("zerogpu-seconds", zerogpu_seconds, known=True),
)
