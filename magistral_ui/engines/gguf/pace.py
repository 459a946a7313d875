"""Estimates how many tokens per second llama.cpp writes on this machine, by timing a few layers of a model in a child process."""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from magistral_ui.engines.gguf.cpu_cores import usable_cores
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.timed_file import write_timed_file
from magistral_ui.engines.weights.pace_file import keep_estimate, known_estimate
from magistral_ui.models.gguf_plan import estimated_weights
from magistral_ui.models.shape import ModelShape

log = logging.getLogger(__name__)

CHILD = Path(__file__).with_name("pace_child.py")
TIMEOUT = 60.0
"""Seconds, on a busy computer; on an idle one it takes two to ten. What is slower cannot be read along anyway."""
POLL_SECONDS = 0.1
ALL_LAYERS = 999
COPIES = 2
"""How often the layers are in memory: as the file's pages, and rearranged for the processor."""
CHILD_BYTES = 2**28


def estimated_gguf_pace(
    shape: ModelShape, quantization: str, device: LlamaDevice, rest: Callable[[], None]
) -> float | None:
    """Tokens per second at the start of a conversation; the result is kept on disk.

    Takes seconds. None if the layers do not fit or cannot be run. `rest` is called again and again: it may wait, and what it
    raises ends the child.
    """
    known = known_estimate(shape, quantization, device)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory(prefix="magistral-ui-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "layers.gguf"
        try:
            timed = write_timed_file(file, shape, quantization)
        except OSError as error:
            log.warning("the pace could not be estimated", exc_info=error)
            return None
        if COPIES * timed + CHILD_BYTES > psutil.virtual_memory().available:
            return None
        seconds = _seconds(file, device, rest)
    if seconds is None:
        return None
    weights = estimated_weights(shape, quantization, mmproj=False)
    pace = round(timed / (sum(weights.layers) + weights.head) / seconds, 3)
    keep_estimate(shape, quantization, device, pace)
    return pace


def _seconds(file: Path, device: LlamaDevice, rest: Callable[[], None]) -> float | None:
    """Seconds per token of the model in `file`."""
    settings = {
        "model": str(file),
        "gpu_layers": ALL_LAYERS if device.kind == "gpu" else 0,
        "threads": usable_cores(),
    }
    with subprocess.Popen(
        [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(settings).encode() + b"\n")
            child.stdin.flush()
            until = time.monotonic() + TIMEOUT
            while child.poll() is None and time.monotonic() < until:
                rest()
                time.sleep(POLL_SECONDS)
            told = json.loads(child.stdout.readline() or b"{}") if child.poll() == 0 else {}
            return float(told["seconds"]) or None
        except (OSError, ValueError, LookupError) as error:
            log.warning("the pace could not be estimated", exc_info=error)
            return None
        finally:
            child.kill()
