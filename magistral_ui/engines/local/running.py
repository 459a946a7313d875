"""A loaded model at work: finds the model that was asked for, brings it up, and takes requests for its scheduler."""

import threading
from dataclasses import replace

import psutil
import torch

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import GenerationRequest, Loading, Measure
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.devices import Device, find_device
from magistral_ui.engines.local.encoding import Encoder
from magistral_ui.engines.local.forward import Part, TextModel
from magistral_ui.engines.local.loader import Loaded, load
from magistral_ui.engines.local.prefix_cache import PrefixCache
from magistral_ui.engines.local.progress import Cancelled, Report
from magistral_ui.engines.local.scheduler import Limits, Scheduler, empty_device_cache
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.local.source import Wish, find_source
from magistral_ui.errors import PromptTooLong
from magistral_ui.models.memory import SPARE, MemoryPlan, plan

LEAST_CPU_BUDGET = 4 * 2**30
"""Bytes for keys and values on a processor, where one long conversation needs no more."""


class RunningModel:
    """A model, its tokenizer, its cache and its scheduler. `run` must be called in the thread that made it."""

    def __init__(self, loaded: Loaded, device: Device, context_length: int | None = None) -> None:
        self.card = loaded.card
        self.encoder = Encoder(loaded.tekken, loaded.card, loaded.system)
        self.system = loaded.system
        text_model = TextModel(loaded.model)
        planned = plan_now(loaded, device)
        self.context_length = min(loaded.info.context_length, planned.context, context_length or planned.context)
        self.info = replace(loaded.info, context_length=self.context_length, plan=planned)
        host = psutil.virtual_memory().available // 4 if device.type == "cuda" else 0
        self.cache = PrefixCache(text_model.new_cache, device.torch, planned.kv_bytes, host)
        limits = Limits(chunk=256, chunk_alone=512) if device.type == "cpu" else Limits(16, 64, 512, 2048)
        self.scheduler = Scheduler(text_model, self.cache, loaded.image_token, limits, planned.kv_per_token)
        warm_up(text_model)

    def measure(self, prompt: Prompt, visitor: str) -> Measure:
        """What `prompt` costs, and what of it the visitor's cache holds."""
        measure, encoded = self.encoder.measure(prompt, visitor)
        return replace(measure, reused=self.cache.match(visitor, encoded.keys))

    def submit(self, request: GenerationRequest) -> Generation:
        """Begin a reply; PromptTooLong or QueueFull where that cannot be."""
        encoded = self.encoder.encode(request.prompt, request.visitor)
        room = self.context_length - len(encoded.ids)
        if room < 1:
            raise PromptTooLong(tokens=len(encoded.ids), limit=self.context_length)
        generation = Generation(on_control=self.scheduler.wake)
        limit = min(request.params.max_tokens, room)
        self.scheduler.submit(Sequence(request, encoded, generation, self.encoder, limit))
        return generation

    def forget(self, visitor: str) -> None:
        """Drop what is kept of a visitor."""
        self.encoder.forget(visitor)
        self.cache.forget(visitor)

    def run(self) -> None:
        """Serve until `close`."""
        self.scheduler.run()

    def close(self) -> None:
        """End `run`; all generations end as cancelled."""
        self.scheduler.close()


def bring_up(wish: Wish, report: Report, closing: threading.Event) -> RunningModel | None:
    """The wished model, ready to run, or None where `closing` was set meanwhile; raises what `find_source` and `load` do."""
    if wish.threads:
        torch.set_num_threads(wish.threads)
    device = find_device(wish.device)
    try:
        source = find_source(wish, device, report, closing)
        loaded = load(
            source.card,
            source.folder,
            device,
            wish.precision,
            source.chosen_because,
            report,
            source=source.name,
            revision=source.revision,
            context_length=wish.context_length,
            closing=closing,
            copy_to=source.copy_to,
        )
    except Cancelled:
        return None
    if closing.is_set():
        return None
    report(Loading("warming_up"))
    running = RunningModel(loaded, device, wish.context_length)
    empty_device_cache()
    return running


def plan_now(loaded: Loaded, device: Device) -> MemoryPlan:
    """How the bytes that are free after loading are shared out."""
    place = find_device(device.type).place
    planned = plan(loaded.shape, loaded.info.precision, place, weights=loaded.weights, loaded=True)
    if device.type == "cpu":
        longest = int(SPARE * planned.context * planned.kv_per_token)
        planned = replace(planned, kv_bytes=min(planned.kv_bytes, max(LEAST_CPU_BUDGET, longest)))
    return planned


def warm_up(model: TextModel) -> None:
    """One small forward: kernels are chosen and weights packed now, in this thread, instead of under the first visitor."""
    cache = model.new_cache()
    model([Part(cache, [0] * 8)])
    model([Part(cache, [0])])
