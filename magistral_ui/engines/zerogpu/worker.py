"""A model that is placed as ZeroGPU asks before there is a GPU, and what a forked process does with it: write one slice.

The slice is written by the sequence, scheduler and executor of the engine in this process, without its thread. Of what the fork
has copied, only what takes no lock is used, the model and the vocabulary: a thread of the other process may have held any lock
at that moment. Everything else is made anew and ends with the slice.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import torch

from magistral_ui.chat.events import Event, Failed, Finished, FinishReason, Prefilling
from magistral_ui.chat.prompt import Prompt
from magistral_ui.chat.reasoning import TokenReader
from magistral_ui.chat.reasoning_control import ControlTokens
from magistral_ui.engines.base import GenerationRequest, Measure, ModelRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.local.executor import Executor
from magistral_ui.engines.local.prefix_cache import PrefixCache
from magistral_ui.engines.local.running_model import tokenizer_of
from magistral_ui.engines.local.scheduler import Scheduler, scheduler_limits
from magistral_ui.engines.local.sequence import Sequence, encoded_within
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.engines.weights.devices import Device, find_device
from magistral_ui.engines.weights.load_errors import memory_named
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.progress import Report
from magistral_ui.engines.weights.source import find_source
from magistral_ui.engines.zerogpu.slices import SLICE_MARGIN_SECONDS, SharedFlags, SliceJob, SlicePiece, Token
from magistral_ui.models.folder import AUTO
from magistral_ui.models.memory import pages_of, plan

CUDA_CONTEXT_BYTES = 309_002_240
"""What a CUDA context takes of the device, as the spaces package has it (zero/torch/static.py)."""
REPORT_INTERVAL = 0.05


class PlacedModel:
    """A model and its tokenizer. Made before the first fork; only `write` runs the model, and in a forked process."""

    def __init__(self, loaded: Loaded, device: Device, context_length: int | None, flags: SharedFlags) -> None:
        self.card = loaded.card
        self.tokenizer = tokenizer_of(loaded)
        self._vocabulary = _Vocabulary(self.tokenizer)
        self._decoder = Decoder(loaded.model)
        # The GPU that will be lent is empty: the weights are still part of its free bytes.
        self._plan = plan(loaded.shape, loaded.info.precision, device.place, weights=loaded.weights)
        self.context_length = min(loaded.info.context_length, self._plan.context, context_length or self._plan.context)
        self.info = replace(loaded.info, context_length=self.context_length, plan=self._plan)
        self.weights = loaded.weights
        self._image_token, self._flags = loaded.image_token, flags
        self._limits = replace(scheduler_limits(self._decoder.device.type), max_sequences=1)

    def measure(self, prompt: Prompt, visitor: str) -> Measure:
        """What `prompt` costs; nothing of it is ever in a cache."""
        return self.tokenizer.measure(prompt, visitor)[0]

    def sequence(self, request: GenerationRequest, generation: Generation) -> Sequence:
        """The reply as the page's process emits it; PromptTooLong if there is no room for one."""
        encoded, limit = encoded_within(self.context_length, self.tokenizer, request)
        return Sequence(request, encoded, generation, self.tokenizer, limit)

    def forget(self, visitor: str) -> None:
        self.tokenizer.forget(visitor)

    def write(self, job: SliceJob) -> Iterator[SlicePiece]:
        """What comes after `job.written`, until the reply ends or the time is over."""
        began = max(job.asked_at, psutil.Process().create_time())  # a process that was forked for this slice is younger
        generation = _WatchedGeneration(self._flags, job)
        request = GenerationRequest(Prompt((), ()), job.params)
        sequence = Sequence(request, job.prompt, generation, self._vocabulary, job.limit)  # type: ignore[arg-type]
        sequence.resume_after(job.written)
        pool = self._decoder.open_pool(pages_of(len(sequence.prompt.ids) + sequence.limit))
        executor = Executor(self._decoder, PrefixCache(pool), self._image_token)
        scheduler = Scheduler(executor, self._limits)
        scheduler.submit(sequence)
        last, until, reported = job.tokens, began + job.seconds - SLICE_MARGIN_SECONDS, 0.0
        fresh: list[Token] = []
        while generation.end is None and time.time() < until and last != 0:
            before = sequence.length
            if last is not None:  # a step writes a token for each of its rows at most
                scheduler.speculative_rows = min(scheduler.speculative_rows, last)
            scheduler.step()
            written = [(token, generation.answered) for token in sequence.tokens[before:]]
            fresh += written
            last = None if last is None else last - len(written)
            now = time.time()
            if now - reported >= REPORT_INTERVAL:
                yield SlicePiece(tuple(fresh), now - began, generation.prefilling)
                fresh, generation.prefilling, reported = [], None, now
        yield SlicePiece(tuple(fresh), time.time() - began, generation.prefilling, generation.end)


def place_model(request: ModelRequest, report: Report, flags: SharedFlags) -> PlacedModel:
    """The model asked for, in memory and marked for the GPU; raises what `find_source` and `load` do.

    Must be called in the thread that imported the spaces package, before Blocks.launch: ZeroGPU's stand-in for a GPU is active
    there, and launching packs the weights. One thread computes, since a fork does not copy torch's others.
    """
    torch.set_num_threads(1)
    device = _lent_device()
    # Nothing is quantized: that would have to be computed on the GPU.
    request = replace(request, save_quantized="no", precision="bfloat16" if device.type == "cuda" else "auto")
    if device.type == "cuda":  # whoever publishes a Space on ZeroGPU has asked for a real model
        request = replace(request, model=request.model or AUTO)
    source = find_source(request, device, report, threading.Event())
    loaded = load(source, device, request.precision, report, context_length=request.context_length, by_way_of_host=True)
    with memory_named(loaded.info.name, device.name):
        return PlacedModel(loaded, device, request.context_length, flags)


def _lent_device() -> Device:
    """The GPU that will be lent, as ZeroGPU describes it: there is none yet to be asked."""
    if not torch.cuda.is_available():
        return find_device("cpu")
    facts = torch.cuda.get_device_properties(0)
    return Device("cuda", facts.name, facts.total_memory - CUDA_CONTEXT_BYTES, facts.total_memory)


class _WatchedGeneration(Generation):
    """A reply that the page's process emits: keeps what that process needs, and sees its stop and answer-now."""

    def __init__(self, flags: SharedFlags, job: SliceJob) -> None:
        super().__init__()
        self._flags, self._place, self._ticket = flags, job.place, job.ticket
        self.answered = False
        self.prefilling: Prefilling | None = None
        self.end: FinishReason | Failed | None = None

    def put(self, event: Event) -> None:
        if isinstance(event, Prefilling):
            self.prefilling = event
        elif isinstance(event, Failed):
            self.end = event
        elif isinstance(event, Finished):
            self.end = event.why

    @property
    def stop_requested(self) -> bool:
        return self._flags.read(self._place, self._ticket)[0]

    @property
    def answer_now_requested(self) -> bool:
        self.answered = self._flags.read(self._place, self._ticket)[1]
        return self.answered

    @property
    def ended(self) -> bool:
        return self.end is not None


class _Vocabulary:
    """The part of the tokenizer that takes no lock. In which tokens a reply was written is remembered on the other side."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.end_of_turn = tokenizer.end_of_turn
        self.first_text_token = tokenizer.first_text_token
        self._control = tokenizer.control_tokens()
        self._tokenizer = tokenizer

    def reader(self) -> TokenReader:
        return self._tokenizer.reader()

    def control_tokens(self) -> ControlTokens:
        return self._control

    def remember_reply(self, *_: object, **__: object) -> None:
        pass

    def replies_of(self, _: str) -> list[list[int]]:
        return []
