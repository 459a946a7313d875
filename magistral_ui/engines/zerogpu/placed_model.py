"""A model that was placed as ZeroGPU asks, before there is a GPU: what the page's process needs of it, and what a fork does."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import GenerationRequest, Measure
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.local.running_model import encoded_within, encoder_of
from magistral_ui.engines.local.scheduler import scheduler_limits
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.load_errors import memory_named
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.progress import Report
from magistral_ui.engines.weights.source import ModelRequest, find_source
from magistral_ui.engines.zerogpu.shared_flags import SharedFlags
from magistral_ui.engines.zerogpu.slices import SliceJob, SlicePiece
from magistral_ui.engines.zerogpu.worker import Worker
from magistral_ui.models.memory import plan_loaded

CUDA_CONTEXT_BYTES = 309_002_240
"""What a CUDA context takes of the device, as the spaces package has it (zero/torch/static.py)."""


class PlacedModel:
    """A model and its tokenizer. Nothing here runs the model: that is `write`, behind a fork."""

    def __init__(self, loaded: Loaded, device: Device, context_length: int | None, flags: SharedFlags) -> None:
        self.card = loaded.card
        self.encoder = encoder_of(loaded)
        text_model = Decoder(loaded.model)
        planned = plan_loaded(loaded.shape, loaded.info.precision, device.place, loaded.layers, loaded.weights)
        self.context_length = min(loaded.info.context_length, planned.context, context_length or planned.context)
        text_model.longest = self.context_length
        self.info = replace(loaded.info, context_length=self.context_length, plan=planned)
        self.weights = loaded.weights
        limits = replace(scheduler_limits(text_model.device.type), running=1, waiting=1)
        self._writer = Worker(
            text_model,
            self.encoder,
            loaded.image_token,
            limits,
            planned.kv_bytes,
            planned.kv_per_token,
            flags,
        )

    @property
    def write(self) -> Callable[[SliceJob], Iterator[SlicePiece]]:
        """Writes one slice, where the GPU is."""
        return self._writer.write

    def measure(self, prompt: Prompt, visitor: str) -> Measure:
        """What `prompt` costs; nothing is ever read already."""
        return self.encoder.measure(prompt, visitor)[0]

    def sequence(self, request: GenerationRequest, generation: Generation) -> Sequence:
        """The reply as it is told here; PromptTooLong where there is no room for one."""
        encoded, limit = encoded_within(self.context_length, self.encoder, request)
        return Sequence(request, encoded, generation, self.encoder, limit)

    def forget(self, visitor: str) -> None:
        """Drop what is kept of a visitor."""
        self.encoder.forget(visitor)


def place_model(wish: ModelRequest, report: Report, flags: SharedFlags) -> PlacedModel:
    """The wished model, in memory and marked for the GPU; raises what `find_source` and `load` do.

    Must be called in the thread that imported the spaces package, before Blocks.launch: ZeroGPU's stand-in for a GPU holds there,
    and at launch it takes the weights. One thread computes, since a fork does not copy torch's others.
    """
    torch.set_num_threads(1)
    device = _lent_device()
    never = threading.Event()
    source = find_source(replace(wish, save_quantized="no", precision=_precision(device)), device, report, never)
    loaded = load(
        source.card,
        source.folder,
        device,
        _precision(device),
        source.chosen_because,
        report,
        source=source.name,
        revision=source.revision,
        context_length=wish.context_length,
        by_way_of_host=True,
    )
    with memory_named(loaded.info.name, device.name):
        return PlacedModel(loaded, device, wish.context_length, flags)


def _precision(device: Device) -> str:
    """Nothing is quantized: that would have to be computed on the GPU."""
    return "bfloat16" if device.type == "cuda" else "auto"


def _lent_device() -> Device:
    """The GPU that will be lent, by ZeroGPU's own word: there is none yet to be asked."""
    if not torch.cuda.is_available():
        from magistral_ui.engines.weights.devices import find_device

        return find_device("cpu")
    facts = torch.cuda.get_device_properties(0)
    return Device("cuda", facts.name, facts.total_memory - CUDA_CONTEXT_BYTES, facts.total_memory)
