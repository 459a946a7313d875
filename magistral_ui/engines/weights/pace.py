"""How many tokens per second a model writes on this machine: measured when it ran, or estimated by timing one of its layers.

Estimates and measurements are kept in a small file beside the quantized copies. Whatever is wrong with that file, it is as if
nothing were known.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM
from transformers.utils import logging as transformers_logging

from magistral_ui.engines.weights.devices import Device, look_again
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.load_errors import LIBRARY_ERRORS
from magistral_ui.engines.weights.packing import can_pack, pack_linears, packed_like
from magistral_ui.engines.weights.quantization import DTYPES, quantization
from magistral_ui.engines.weights.quantized_cache import copies_folder
from magistral_ui.models.ladder import Pace
from magistral_ui.models.shape import ModelShape

log = logging.getLogger(__name__)

VERSION = 1
HEAD_ROWS = 8_192
"""Rows of the head that are timed; the time of the whole head is extrapolated from them."""
ROWS = {"cpu": 4}
"""Rows of a decode step, as the decoder has them: on a processor never fewer than its smallest product."""
MIN_RUNS, MAX_RUNS = 3, 9
RUN_SECONDS = 2.0
"""Time for the runs of one estimate, where MIN_RUNS take less."""
CACHE_BYTES = 2**29
"""Bytes read on a processor before each run, to empty its cache: in a whole model, no layer is still there at the next token."""
LAYER_COPIES = 4
"""Copies of a layer in 16 bits that an estimate may need at once: random, read, quantized, packed."""
OLD_SHARE = 0.7
"""Weight of what was known in a new measurement, so that one unusual reply changes little."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Tokens per second by key."""

    estimated: dict[str, float]
    measured: dict[str, float]


def pace_of(device: Device, *, timed: bool = True) -> Pace:
    """The pace on `device`: measured if the model ran here, or else estimated, which takes seconds the first time.

    With `timed` False nothing is run: only what was known at the time of the call is told.
    """
    now_known = None if timed else _read()

    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        known, key = now_known or _read(), _key(shape, precision, device)
        if key in known.measured:
            return known.measured[key], True
        return estimated_pace(shape, precision, device) if timed else known.estimated.get(key), False

    return pace


def measured_pace(shape: ModelShape, precision: str, device: Device) -> float | None:
    """Tokens per second of replies that a model of this shape wrote here; None if there were none."""
    return _read().measured.get(_key(shape, precision, device))


def record_pace(shape: ModelShape, precision: str, device: Device, tokens_per_second: float) -> None:
    """Remember the pace of a reply."""
    known, key = _read(), _key(shape, precision, device)
    old = known.measured.get(key, tokens_per_second)
    known.measured[key] = round(OLD_SHARE * old + (1 - OLD_SHARE) * tokens_per_second, 3)
    _write(known)


def do_not_rest() -> None:
    """The `rest` of timing that never has to pause."""


def estimated_pace(
    shape: ModelShape, precision: str, device: Device, rest: Callable[[], None] = do_not_rest
) -> float | None:
    """Tokens per second at the start of a conversation, from timing one layer with random weights on `device`.

    Takes seconds, and the memory of a layer; the result is kept on disk. None if a layer does not fit or cannot be run. `rest`
    is called between any two steps: it may wait, and what it raises ends the timing.
    """
    key = _key(shape, precision, device)
    known = _read().estimated.get(key)
    if known is not None:
        return known
    layer = 2 * shape.linear_parameters // shape.layers
    if LAYER_COPIES * layer + 4 * HEAD_ROWS * shape.hidden + CACHE_BYTES > look_again(device).free:
        return None
    try:
        seconds = _seconds(shape, precision, device, rest)
    except LIBRARY_ERRORS as error:
        log.warning("the pace could not be estimated", exc_info=error)
        return None
    finally:
        empty_device_cache()
    now, pace = _read(), round(1 / seconds, 3)
    now.estimated[key] = pace
    _write(now)
    return pace


@torch.inference_mode()
def _seconds(shape: ModelShape, precision: str, device: Device, rest: Callable[[], None]) -> float:
    """Seconds of a decode step of one sequence, by those of a layer and of a part of the head."""
    rest()
    model = _one_layer(shape, precision, device)
    rest()
    layer, head = model.model.layers[0], model.lm_head
    if device.type == "cpu" and can_pack(DTYPES[precision]):
        pack_linears(layer)
        head = packed_like(head) or head
    hidden = torch.randn(1, ROWS.get(device.type, 1), shape.hidden, device=device.torch, dtype=DTYPES[precision])
    tables = model.model.rotary_emb(hidden, torch.arange(hidden.shape[1], device=device.torch)[None])
    of_layer = _least(lambda: layer(hidden, position_embeddings=tables, attention_mask=None), device, rest)
    of_head = _least(lambda: head(hidden[0]), device, rest)
    return shape.layers * of_layer + of_head * shape.vocabulary / HEAD_ROWS


def _one_layer(shape: ModelShape, precision: str, device: Device) -> Any:
    """A model of one layer of this shape, loaded as `loader.py` loads a whole one."""
    config = MistralConfig(
        vocab_size=HEAD_ROWS,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=1,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        outline = MistralForCausalLM(config)
    noise = torch.randn(2**16).mul_(0.02).bfloat16()  # repeated: drawing all would take longer than running the layer
    state = {
        name: noise.repeat(-(-tensor.numel() // len(noise)))[: tensor.numel()].view(tensor.shape)
        for name, tensor in outline.state_dict().items()
    }
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    model: Any = MistralForCausalLM.from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=DTYPES[precision],
        device_map={"": device.torch},
        quantization_config=quantization(precision, device.type),
    )
    return model.eval()


def _least(run: Callable[[], object], device: Device, rest: Callable[[], None]) -> float:
    """Seconds of the run that other programs disturbed least."""
    run()  # kernels are chosen, and nf4 weights rearranged
    other = torch.ones(CACHE_BYTES // 8 if device.type == "cpu" else 0, dtype=torch.int64)
    taken: list[float] = []
    while len(taken) < MIN_RUNS or (len(taken) < MAX_RUNS and sum(taken) < RUN_SECONDS):
        rest()
        other.sum()
        _wait_for(device)
        began = time.perf_counter()
        run()
        _wait_for(device)
        taken.append(time.perf_counter() - began)
    return min(taken)


def _wait_for(device: Device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device.torch)
    elif device.type == "mps":
        torch.mps.synchronize()


def _key(shape: ModelShape, precision: str, device: Device) -> str:
    sizes = (
        shape.hidden,
        shape.intermediate,
        shape.layers,
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
        shape.vocabulary,
    )
    model = "x".join(map(str, sizes))
    return f"{model} {precision} {device.name} {torch.__version__} {torch.get_num_threads()}"


def _file() -> Path:
    return copies_folder().with_name("pace.json")


def _read() -> _Known:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        if found["version"] == VERSION:
            return _Known(_paces(found["estimated"]), _paces(found["measured"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    return _Known({}, {})


def _paces(found: dict[str, Any]) -> dict[str, float]:
    return {key: float(pace) for key, pace in found.items() if isinstance(pace, int | float) and 0 < pace < 1e6}


def _write(known: _Known) -> None:
    """Replace the file as a whole; if that fails, nothing is remembered."""
    file = _file()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.partial")
        unfinished.write_text(json.dumps({"version": VERSION, **asdict(known)}, indent=1), encoding="utf-8")
        unfinished.replace(file)
