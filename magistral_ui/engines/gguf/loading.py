"""Makes a running model of a GGUF file: finds the files, plans the memory, starts llama.cpp, and describes the result."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from magistral_ui.engines.base import Loading, ModelInfo, ModelRequest
from magistral_ui.engines.gguf.devices import LlamaDevice, find_llama_device
from magistral_ui.engines.gguf.fitting import plan_fitting
from magistral_ui.engines.gguf.source import GGUFSource, find_gguf
from magistral_ui.engines.gguf.supervisor import LlamaServer, ServerSettings, Supervisor
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.engines.weights.progress import Report
from magistral_ui.errors import Message, ModelFilesBroken
from magistral_ui.models.gguf_buffers import batch_of
from magistral_ui.models.memory import MemoryPlan
from magistral_ui.models.shape import MAX_SEQUENCES


@dataclass(frozen=True, slots=True)
class LoadedGGUF:
    """A model that llama.cpp runs."""

    info: ModelInfo
    source: GGUFSource
    device: LlamaDevice
    tokenizer: Tokenizer
    supervisor: Supervisor
    server: LlamaServer
    slots: int
    capacity: int
    """Tokens of the pool of keys and values."""


def load_gguf(request: ModelRequest, report: Report, closing: threading.Event) -> LoadedGGUF:
    """The requested model, running; raises a ModelError, or Cancelled once `closing` is set."""
    device = find_llama_device(request.device)
    notices = [device.hindrance] if device.hindrance else []

    def tell(loading: Loading) -> None:
        report(replace(loading, notices=tuple(notices)))

    source = find_gguf(request, device, tell, closing, notices.append)
    device = find_llama_device(request.device)  # a download may have taken hours
    plan = plan_fitting(source.card.name, source.facts, request, device)
    return run_source(request, source, device, plan, tell, closing, notices)


def run_source(
    request: ModelRequest,
    source: GGUFSource,
    device: LlamaDevice,
    plan: MemoryPlan,
    report: Report,
    closing: threading.Event,
    notices: Sequence[Message] = (),
) -> LoadedGGUF:
    """Start llama.cpp with what was found and planned, and say what runs."""
    tokenizer = tokenizer_of(source, plan)
    settings = server_settings(request, source, device, plan)
    supervisor = Supervisor(settings, report, closing)
    server = supervisor.start()
    longest = int(server.props.get("default_generation_settings", {}).get("n_ctx", settings.context))
    info = ModelInfo(
        name=source.card.name,
        source=source.name,
        precision=source.facts.quantization,
        device=device.name,
        context_length=min(
            plan.context, request.context_length or plan.context, longest, settings.context - settings.slots
        ),
        parameters=source.facts.shape.parameters,
        revision=source.revision,
        chosen_because=source.chosen_because,
        engine="llama.cpp",
        plan=plan,
        notices=tuple(notices),
    )
    return LoadedGGUF(info, source, device, tokenizer, supervisor, server, settings.slots, settings.context)


def server_settings(request: ModelRequest, source: GGUFSource, device: LlamaDevice, plan: MemoryPlan) -> ServerSettings:
    """How llama.cpp is to run what was planned."""
    slots = plan.slots or MAX_SEQUENCES
    pool = max(plan.context, plan.kv_bytes // plan.kv_per_token)
    on_cards = bool(plan.gpu_layers) and (bool(device.others) or device.index > 0)
    return ServerSettings(
        model=source.files[0],
        mmproj=source.mmproj,
        context=pool + slots,  # an erased slot still holds a token
        slots=slots,
        batch=batch_of(device.kind),
        gpu_layers=plan.gpu_layers or 0,
        tensor_split=_tensor_split(plan) if on_cards else (),
        mmproj_device=_name_of(device, plan.shares[0].index) if on_cards and source.mmproj else "",
        kv_type=plan.kv_type or "f16",
        threads=request.threads,
        model_name=source.name,
        device_name=device.name,
        parts=source.files,
    )


def _tensor_split(plan: MemoryPlan) -> tuple[int, ...]:
    """Layers by graphics card; the last one that is used also holds the head, which llama.cpp counts as a layer."""
    layers = [0] * (1 + plan.shares[-1].index)
    for share in plan.shares:
        layers[share.index] = share.layers
    layers[-1] += 1
    return tuple(layers)


def _name_of(device: LlamaDevice, index: int) -> str:
    return next((each.short_name for each in (device, *device.others) if each.index == index), "")


def tokenizer_of(source: GGUFSource, plan: MemoryPlan) -> Tokenizer:
    """The model's tokenizer; raises ModelFilesBroken if its file is not one."""
    try:
        tokenizer = Tokenizer(source.tekken, source.card, source.card.system(), plan.image_side, pixels=False)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelFilesBroken(model=source.name, file=source.tekken.name) from error
    return tokenizer
