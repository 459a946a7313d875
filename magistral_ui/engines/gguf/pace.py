"""Estimates how many tokens per second llama.cpp writes on this machine, by timing a few layers of a model in a child process."""

import logging
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from magistral_ui.engines.gguf.child_process import ChildProcess
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.supervisor import ServerSettings
from magistral_ui.engines.gguf.timed_file import write_timed_file
from magistral_ui.engines.weights.pace_file import keep_estimates, known_estimate
from magistral_ui.models.gguf_plan import QUANTIZATIONS, estimated_weights
from magistral_ui.models.shape import ModelShape

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds, on a busy computer; on an idle one it takes two to ten. Then the best run so far counts."""
POLL_SECONDS = 0.1
ALL_LAYERS = 999
CONTEXT, BATCH = 512, 64
"""Tokens; what is timed has a handful of them."""
COPIES = 2
"""How often the layers are in memory: as the file's pages, and rearranged for the processor."""
CHILD_BYTES = 2**28


def estimated_gguf_pace(
    shape: ModelShape, quantization: str, device: LlamaDevice, rest: Callable[[], None], timeout: float = TIMEOUT
) -> float | None:
    """Tokens per second at the start of a conversation; the results, for all quantizations, are kept on disk.

    Takes seconds, once for each shape. None if the layers do not fit or cannot be run. `rest` is called again and again: it may
    wait, and what it raises ends the child.
    """
    known = known_estimate(shape, quantization, device)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory(prefix="magistral-ui-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "layers.gguf"
        try:
            timed = write_timed_file(file, shape)
        except OSError as error:
            log.warning("the pace could not be estimated", exc_info=error)
            return None
        if COPIES * timed + CHILD_BYTES > psutil.virtual_memory().available:
            return None
        seconds = _seconds(file, device, rest, timeout)
    if seconds is None:
        return None
    paces = {each: round(timed / read_bytes(shape, each) / seconds, 3) for each in QUANTIZATIONS}
    keep_estimates(shape, paces, device)
    return paces[quantization]


def read_bytes(shape: ModelShape, quantization: str) -> int:
    """Bytes of weights that are read for each token."""
    weights = estimated_weights(shape, quantization, mmproj=False)
    return sum(weights.layers) + weights.head


def _seconds(file: Path, device: LlamaDevice, rest: Callable[[], None], timeout: float) -> float | None:
    """Seconds per token of the model in `file`."""
    layers = ALL_LAYERS if device.kind == "gpu" else 0
    settings = ServerSettings(file, context=CONTEXT, slots=1, batch=BATCH, gpu_layers=layers, warm_up=False)
    try:
        child = ChildProcess({**settings.told(secrets.token_urlsafe(32)), "timed": timeout})
    except OSError as error:
        log.warning("the pace could not be estimated", exc_info=error)
        return None
    try:
        until = time.monotonic() + timeout
        while not child.answered.wait(POLL_SECONDS) and time.monotonic() < until:
            rest()
        answer = child.answer or {}
        if "seconds" not in answer:
            log.warning("the pace could not be estimated: %s %s", answer.get("detail", ""), child.tail()[-1:])
            return None
        return float(answer["seconds"]) or None
    finally:
        child.end()
