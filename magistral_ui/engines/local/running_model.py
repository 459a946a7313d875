"""A loaded model with its tokenizer, cache and scheduler, and how one is made from what the operator asked for.

It imports torch, which `engine.py` does not: the page is served before torch is there.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import torch

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import GenerationRequest, Loading, Measure, ModelRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.attention_choice import use_kernels
from magistral_ui.engines.local.compiled_ops import compile_pieces
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.executor import Executor
from magistral_ui.engines.local.kv_cache import PagePool
from magistral_ui.engines.local.prefix_cache import PrefixCache
from magistral_ui.engines.local.scheduler import SPECULATIVE_ROWS, Scheduler, scheduler_limits
from magistral_ui.engines.local.sequence import Sequence, encoded_within
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.engines.pace_recorder import PaceRecorder
from magistral_ui.engines.weights.devices import Device, find_device, look_again
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.load_errors import is_out_of_memory, memory_named
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.pace_file import record_pace
from magistral_ui.engines.weights.progress import Cancelled, Report
from magistral_ui.engines.weights.quantization import held_bytes
from magistral_ui.engines.weights.source import find_source
from magistral_ui.errors import BadSetting, DeviceTooSmall, ModelFilesBroken
from magistral_ui.models.memory import MIN_CONTEXT, PAGE_TOKENS, MemoryPlan, pages_of, plan_loaded, with_less

log = logging.getLogger(__name__)

MIN_CPU_KV_BYTES = 4 * 2**30
"""Bytes for keys and values on a processor, unless one conversation of full length needs more."""


POOL_SHRINK_FACTOR = 0.9
"""What is left of the pages of keys and values where there is no room for all of them."""


class RunningModel:
    """A model, its tokenizer, its cache and its scheduler. `run` must be called in the thread that made it."""

    def __init__(
        self, loaded: Loaded, device: Device, context_length: int | None = None, *, speculate: bool = True
    ) -> None:
        """`speculate`: whether replies are drafted ahead, which changes their pace only."""
        self.card = loaded.card
        self.tokenizer = tokenizer_of(loaded)
        self.system = loaded.system
        self.decoder = Decoder(loaded.model, join=device.type == "cuda")
        compile_pieces(self.decoder.layers, self.decoder.config.hidden_size, self.decoder.dtype)
        warm_up(self.decoder)
        laid_out = held_bytes(loaded.model) - loaded.weights  # on a processor, packing unpacks the scales of nf4
        empty_device_cache()  # what loading left over is free, and would otherwise shorten the context
        planned = plan_now(loaded, device, self.decoder.copied_bytes + laid_out)
        longest = min(loaded.info.context_length, planned.context, context_length or planned.context)
        pool = open_pool(self.decoder, pages_held(planned, longest), longest)
        if pool.pages < pages_held(planned, longest):
            planned = with_less(loaded.shape, planned, pool.pages * pool.page_bytes)
        self.context_length = min(longest, pool.pages * PAGE_TOKENS)
        if device.type == "cuda":
            use_kernels(self.decoder)
            self.decoder.record()
        self.info = replace(loaded.info, context_length=self.context_length, plan=planned)
        host = psutil.virtual_memory().available // 4 if device.type == "cuda" else 0
        self.cache = PrefixCache(pool, spill_budget=host)
        executor = Executor(self.decoder, self.cache, loaded.image_token)
        self.scheduler = Scheduler(
            executor, scheduler_limits(device.type), speculative_rows(self.decoder) if speculate else 0
        )
        shape, precision = loaded.shape, loaded.info.precision
        self._pace = PaceRecorder(lambda pace: record_pace(shape, precision, device, pace))

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values in the device's memory."""
        return self.cache.nbytes

    def measure(self, prompt: Prompt, visitor: str) -> Measure:
        measure, encoded = self.tokenizer.measure(prompt, visitor)
        return replace(measure, reused=self.cache.match(visitor, encoded.keys))

    def submit(self, request: GenerationRequest, waiting: Generation | None = None) -> Generation:
        """Begin a reply, in the Generation that is `waiting` for it if there is one; raises PromptTooLong or NotReady."""
        encoded, limit = encoded_within(self.context_length, self.tokenizer, request)
        generation = Generation() if waiting is None else waiting  # an empty one is false
        generation.control_with(self.scheduler.wake)
        if not self.card.demo:
            self._pace.watch(generation)
        self.scheduler.submit(Sequence(request, encoded, generation, self.tokenizer, limit))
        return generation

    def forget(self, visitor: str) -> None:
        for sequence in self.scheduler.live_of(visitor):  # what these remember goes once they have ended
            sequence.generation.when_ended(lambda: self._forget(visitor))
        self._forget(visitor)

    def _forget(self, visitor: str) -> None:
        self.tokenizer.forget(visitor)
        self.cache.forget(visitor)

    def run(self) -> None:
        """Serve until `close`."""
        self.scheduler.run()

    def close(self) -> None:
        """End `run`; all generations end as cancelled."""
        self.scheduler.close()


def load_model(request: ModelRequest, report: Report, closing: threading.Event) -> RunningModel | None:
    """The requested model, ready to run, or None once `closing` is set; raises what `find_source` and `load` do."""
    if request.threads:
        torch.set_num_threads(request.threads)
    empty_device_cache()  # what a model that was unloaded has left over counts as free
    device = find_device(request.device)
    notices = [device.hindrance] if device.hindrance else []
    for each in notices:
        log.warning("no graphics card: %s %s", each.key, each.values)

    def tell(loading: Loading) -> None:
        report(replace(loading, notices=tuple(notices)))

    try:
        with _name_hindrance(device):
            source = find_source(request, device, tell, closing, notices.append)
        device = look_again(device)  # a download may have taken hours
        loaded = load(source, device, source.precision, tell, context_length=request.context_length, closing=closing)
    except Cancelled:
        return None
    if closing.is_set():
        return None
    tell(Loading("warming_up"))
    loaded = replace(loaded, info=replace(loaded.info, notices=(*notices, *loaded.info.notices)))
    with memory_named(loaded.info.name, loaded.info.device):
        running = RunningModel(loaded, device, request.context_length)
    empty_device_cache()
    return running


@contextmanager
def _name_hindrance(device: Device) -> Iterator[None]:
    """If a model is too large for the processor, and a graphics card cannot be used, say why the card cannot."""
    try:
        yield
    except DeviceTooSmall as error:
        if device.hindrance is None:
            raise
        raise BadSetting(device.hindrance.key, **device.hindrance.values) from error


def tokenizer_of(loaded: Loaded) -> Tokenizer:
    """The model's tokenizer; raises ModelFilesBroken if its file is not one."""
    try:
        return Tokenizer(loaded.tekken, loaded.card, loaded.system, loaded.shape.image_side)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelFilesBroken(model=loaded.info.source, file=loaded.tekken.name) from error


def plan_now(loaded: Loaded, device: Device, copied: int = 0) -> MemoryPlan:
    """How the bytes that are free after loading are divided; `copied` are those that the decoder added to the weights."""
    place = look_again(device.first(len(loaded.layers))).place
    planned = plan_loaded(loaded.shape, loaded.info.precision, place, loaded.layers, loaded.weights + copied)
    if device.type == "cpu":
        longest = planned.context * planned.kv_per_token
        planned = with_less(loaded.shape, planned, max(MIN_CPU_KV_BYTES, longest))
    return planned


def pages_held(planned: MemoryPlan, longest: int) -> int:
    """Pages that the plan has room for, and always enough for the longest conversation."""
    return max(planned.kv_bytes // (planned.kv_per_token * PAGE_TOKENS), pages_of(longest))


def open_pool(model: Decoder, pages: int, longest: int) -> PagePool:
    """The model's pool of that many pages, or of fewer if the device, which was counted before, has no room for them now.

    Raises what allocating raises if MIN_CONTEXT tokens, or the `longest` conversation if that is shorter, do not fit either.
    """
    least = pages_of(min(longest, MIN_CONTEXT))
    while True:
        try:
            return model.open_pool(pages, min(longest, pages * PAGE_TOKENS))
        except (MemoryError, RuntimeError) as error:
            if pages <= least or not is_out_of_memory(error):
                raise
        # Outside the handler, whose traceback keeps what has been allocated of the pool alive.
        empty_device_cache()
        fewer = max(least, int(pages * POOL_SHRINK_FACTOR))
        log.warning("no room for %d pages of keys and values: trying %d", pages, fewer)
        pages = fewer


def speculative_rows(decoder: Decoder) -> int:
    """Rows of a step with drafts: no more than are recorded. On some GPUs, nf4 costs several times as much from there on."""
    return SPECULATIVE_ROWS if decoder.graphs is None else min(SPECULATIVE_ROWS, decoder.graphs.buckets[-1])


def warm_up(model: Decoder) -> None:
    """Run two small forwards now, so that the first visitor does not wait while kernels are chosen."""
    model.open_pool(1)
    cache = model.new_cache()
    model([DecoderInput(cache, [0] * 8)])
    model([DecoderInput(cache, [0])])
