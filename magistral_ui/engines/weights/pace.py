"""Estimates how many tokens per second a model writes with torch on this machine, by timing one of its layers.

`pace_file.py` keeps estimates, and the paces of replies.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM
from transformers.utils import logging as transformers_logging

from magistral_ui.engines.weights.devices import Device, look_again
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.load_errors import LIBRARY_ERRORS
from magistral_ui.engines.weights.pace_file import keep_estimate, known_estimate, measured_pace
from magistral_ui.engines.weights.packing import can_pack, least_rows, pack_linears, packed_like
from magistral_ui.engines.weights.quantization import DTYPES, quantization, quiet_bitsandbytes
from magistral_ui.models.ladder import Pace
from magistral_ui.models.shape import ModelShape

log = logging.getLogger(__name__)

HEAD_ROWS = 8_192
"""Rows of the head that are timed; the time of the whole head is extrapolated from them."""
MIN_RUNS, MAX_RUNS = 3, 9
RUN_SECONDS = 2.0
"""Time for the runs of one estimate, where MIN_RUNS take less."""
CACHE_BYTES = 2**29
"""Bytes read on a processor before each run, to empty its cache: in a whole model, no layer is still there at the next token."""
LAYER_COPIES = 4
"""Copies of a layer in 16 bits that an estimate may need at once: random, read, quantized, packed."""


def pace_of(device: Device) -> Pace:
    """The pace on `device`: measured if the model ran here, or else estimated, which takes seconds the first time."""

    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        measured = measured_pace(shape, precision, device)
        return (measured, True) if measured else (estimated_pace(shape, precision, device), False)

    return pace


def do_not_rest() -> None:
    """The `rest` of timing that never has to pause."""


def estimated_pace(
    shape: ModelShape, precision: str, device: Device, rest: Callable[[], None] = do_not_rest
) -> float | None:
    """Tokens per second at the start of a conversation, from timing one layer with random weights on `device`.

    Takes seconds, and the memory of a layer; the result is kept on disk. None if a layer does not fit or cannot be run. `rest`
    is called between any two steps: it may wait, and what it raises ends the timing.
    """
    known = known_estimate(shape, precision, device)
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
    pace = round(1 / seconds, 3)
    keep_estimate(shape, precision, device, pace)
    return pace


@torch.inference_mode()
def _seconds(shape: ModelShape, precision: str, device: Device, rest: Callable[[], None]) -> float:
    """Seconds of a decode step of one sequence, by those of a layer and of a part of the head."""
    rest()
    model = _one_layer(shape, precision, device)
    rest()
    layer, head = model.model.layers[0], model.lm_head
    if device.type == "cpu" and can_pack(DTYPES[precision]):
        pack_linears(layer, join=False)  # transformers' own forward is timed
        head = packed_like(head) or head
    rows = least_rows(layer) if device.type == "cpu" else 1
    hidden = torch.randn(1, rows, shape.hidden, device=device.torch, dtype=DTYPES[precision])
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
    quiet_bitsandbytes()
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
