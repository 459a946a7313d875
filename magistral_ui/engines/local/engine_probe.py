"""Runs a model for the doctor: compares our forward with transformers' on this device, writes a sampled reply, and times steps.

By default only the first layers are loaded, which is enough to prove the arithmetic. Nothing is downloaded: HF_HUB_OFFLINE has to
be set where that is not wanted.
"""

import logging
import random
import statistics
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch

from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, ModelRequest
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.running_model import RunningModel, plan_now
from magistral_ui.engines.weights.devices import Device, find_device
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.source import ModelSource, find_source
from magistral_ui.errors import BadSetting, DownloadFailed, Message, ModelNotFound
from magistral_ui.models.cards import DEMO, find_card
from magistral_ui.models.folder import AUTO, DEMO_FOLDER, inspect_folder
from magistral_ui.models.memory import MAX_FLOAT32_PARAMETERS

QUICK_LAYERS = 2
PROMPT, WRITTEN = 300, 4
"""Tokens of a prompt, longer than a page of the cache, and tokens decoded behind it."""
TOGETHER = 8
REPLY_TOKENS = 12
MIN_RUNS, RUN_SECONDS = 3, 1.5
MAX_LINE = 200
"""Characters of a line of the log that are told."""


class EngineLog(logging.Handler, AbstractContextManager["EngineLog"]):
    """Collects what the engine logs meanwhile: which kernels it chooses, and what it warns of; never what people write."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: dict[str, int] = {}
        self._log = logging.getLogger("magistral_ui.engines")
        self._level = self._log.level

    def emit(self, record: logging.LogRecord) -> None:
        self._lines[record.getMessage().splitlines()[0][:MAX_LINE]] = record.levelno

    @property
    def choices(self) -> list[str]:
        return [line for line, level in self._lines.items() if level < logging.WARNING]

    @property
    def warnings(self) -> list[str]:
        return [line for line, level in self._lines.items() if level >= logging.WARNING]

    def __enter__(self) -> "EngineLog":
        self._log.addHandler(self)
        self._log.setLevel(logging.INFO)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._level)


def engine_facts(
    model: str | None = None, device: str = "auto", precision: str = "auto", *, full: bool = False
) -> Generator[dict[str, Any], None, None]:
    """What the engine does with `model`, or with the demo model where that is not on this computer."""
    yield {"stage": "device"}
    place = _device(device)
    yield {"stage": "model"}
    source, missing = _source(model, place, precision)
    if missing is not None:
        yield {"missing": [missing.key, dict(missing.values)]}
    card = find_card(source.name) or (DEMO if source.folder == DEMO_FOLDER else None)
    yield {"model": card.key if card else "folder"}
    with EngineLog() as told:
        yield {"stage": "loading"}
        whole = full or inspect_folder(source.folder).shape.parameters < MAX_FLOAT32_PARAMETERS
        loaded = load(source, place, source.precision, lambda _: None, layers=None if whole else QUICK_LAYERS)
        yield {"precision": loaded.info.precision, "device": loaded.info.device}
        yield {"layers": loaded.shape.layers, "all_layers": loaded.all_layers}
        yield {"stage": "transformers"}
        wanted = reference(loaded)
        yield {"stage": "engine"}
        running = RunningModel(loaded, place)
        yield {"stage": "forward"}
        yield {"differences": differences(running.decoder, wanted)}
        yield {"stage": "decoding"}
        yield {"paces": [_pace(running.decoder, count) for count in (1, TOGETHER)]}
        yield {"stage": "reply"}
        yield _reply(running)
        yield _state(running, loaded, place)
        yield {"warnings": told.warnings, "choices": told.choices}


def _device(wanted: str) -> Device:
    try:
        return find_device(wanted)
    except BadSetting:  # llama.cpp may have it; why torch has not, `torch_probe.py` says
        return find_device("cpu")


def _source(model: str | None, device: Device, precision: str) -> tuple[ModelSource, Message | None]:
    """Where the model is, without a place for a quantized copy; the demo model if it is not here, and why."""
    missing = None
    model = None if model == AUTO else model  # of all models, only those that are here can be tried
    request = ModelRequest(model, device.type, precision, save_quantized="no")
    try:
        source = find_source(request, device, lambda _: None, threading.Event())
    except (DownloadFailed, ModelNotFound) as error:
        missing = Message("doctor_model_missing") if isinstance(error, DownloadFailed) else error.message
        source = find_source(ModelRequest(DEMO.key, save_quantized="no"), device, lambda _: None, threading.Event())
    return source, missing


def _tokens(vocabulary: int, count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(vocabulary // 8, vocabulary) for _ in range(count)]  # behind the control tokens


def _sequences(vocabulary: int) -> list[list[int]]:
    """One long, and eight of different lengths to be read together; each with what is decoded behind it."""
    lengths = [PROMPT, *(3 + 11 * n for n in range(TOGETHER))]
    return [_tokens(vocabulary, length + WRITTEN, seed) for seed, length in enumerate(lengths)]


@torch.inference_mode()
def reference(loaded: Loaded) -> list[torch.Tensor]:
    """transformers' logits (WRITTEN + 1, vocabulary) behind each sequence's prompt and each token after it, on the host."""
    model = loaded.model
    place = next(model.parameters()).device
    said = []
    for tokens in _sequences(loaded.shape.vocabulary):
        ids = torch.tensor([tokens], device=place)
        said.append(model(input_ids=ids, use_cache=False, logits_to_keep=WRITTEN + 1).logits[0].float().cpu())
    return said


def differences(decoder: Decoder, wanted: list[torch.Tensor]) -> dict[str, float]:
    """How far our logits are from those, for a prompt, decoding behind it, and eight sequences together."""
    alone, *together = _sequences(wanted[0].shape[-1])
    first, rest = wanted[0], wanted[1:]
    cache = decoder.new_cache()
    prefill = difference(decoder([DecoderInput(cache, alone[:PROMPT])])[0], first[0])
    steps = (decoder([DecoderInput(cache, [token])])[0] for token in alone[PROMPT:])
    decode = max(difference(got, row) for got, row in zip(steps, first[1:], strict=True))
    cache.crop(0)
    caches = [decoder.new_cache() for _ in together]
    parts = [DecoderInput(held, tokens[:-WRITTEN]) for held, tokens in zip(caches, together, strict=True)]
    worst = _worst(decoder(parts), [rows[0] for rows in rest])
    for step in range(WRITTEN):
        parts = [DecoderInput(held, [tokens[step - WRITTEN]]) for held, tokens in zip(caches, together, strict=True)]
        worst = max(worst, _worst(decoder(parts), [rows[step + 1] for rows in rest]))
    for held in caches:
        held.crop(0)
    return {"prefill": prefill, "decode": decode, f"{TOGETHER} together": worst}


def _worst(got: torch.Tensor, wanted: list[torch.Tensor]) -> float:
    return max(difference(row, other) for row, other in zip(got, wanted, strict=True))


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest one, in standard deviations of `wanted`; infinite where one is not a number."""
    worst = float((got.float().cpu() - wanted.float().cpu()).abs().max() / wanted.float().std())
    return worst if worst == worst else float("inf")


def _pace(decoder: Decoder, count: int) -> dict[str, Any]:
    """Seconds of a decode step of `count` sequences, and prompt tokens a second, as medians."""
    prompts = [_tokens(decoder.config.vocab_size, PROMPT, seed) for seed in range(count)]
    caches = [decoder.new_cache() for _ in prompts]

    def read() -> None:
        for cache in caches:
            cache.crop(0)
        _finish(decoder([DecoderInput(cache, ids) for cache, ids in zip(caches, prompts, strict=True)]))

    def write() -> None:
        _finish(decoder([DecoderInput(cache, ids[:1]) for cache, ids in zip(caches, prompts, strict=True)]))

    prefill = PROMPT * count / _median(read)
    step = _median(write)
    for cache in caches:
        cache.crop(0)
    return {"sequences": count, "step": step, "prefill": prefill}


def _median(run: Callable[[], None]) -> float:
    run()  # kernels are chosen, graphs recorded
    taken: list[float] = []
    while len(taken) < MIN_RUNS or (sum(taken) < RUN_SECONDS and len(taken) < 20 * MIN_RUNS):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _finish(logits: torch.Tensor) -> None:
    """Wait until the device is done."""
    logits[0, 0].item()


def _reply(running: RunningModel) -> dict[str, Any]:
    """Write a short reply as the page would, with a drawn token at each step."""
    params = SamplingParams(temperature=0.7, max_tokens=REPLY_TOKENS, seed=1)
    prompt = Prompt(running.system, (UserTurn("2 + 3?"),))
    generation = running.submit(GenerationRequest(prompt, params, "doctor"))
    generation.when_ended(running.close)
    running.run()
    used = generation.usage.reasoning_tokens + generation.usage.answer_tokens
    failed = generation.failure
    return {"reply_tokens": used, "failure": failed.key if failed else ""}


def _state(running: RunningModel, loaded: Loaded, device: Device) -> dict[str, Any]:
    """Settings of torch's and memory, after everything has run."""
    planned = running.info.plan
    told: dict[str, Any] = {"cudnn": torch.backends.cuda.cudnn_sdp_enabled()}  # type: ignore[no-untyped-call]
    if planned is None or device.type == "cpu":
        return told
    held = running.decoder.pool.page_bytes * (running.decoder.pool.pages + 1)
    empty_device_cache()  # what is left is held for good, as by recorded steps
    if device.type == "cuda":
        reserved = sum(torch.cuda.memory_reserved(each.torch) for each in device.all)
        told |= {"overhead": reserved - loaded.weights - held, "planned_overhead": planned.working + planned.margin}
    again = plan_now(loaded, replace(device, hindrance=None), running.decoder.copied_bytes)
    return told | {"kv_planned": planned.kv_bytes, "kv_possible": held + again.kv_bytes}
