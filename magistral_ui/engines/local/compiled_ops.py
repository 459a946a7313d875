"""Compiles what lies between a layer's products (fused_ops.py), if torch can do so here and the results hold.

Everything is compiled before visitors come, for decode steps of up to MAX_ROWS rows; longer ones, and what was not compiled, take
the plain functions. Nothing is compiled on a processor or on Apple's GPU, where it gains next to nothing, or on Windows, where
torch has no Triton.
"""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from magistral_ui.engines.local.fused_ops import Pieces, added_and_normalized, gated, normalized, rotated
from magistral_ui.engines.weights.devices import MIN_FUSED_CAPABILITY

log = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]
MAX_ROWS = 16
"""Rows of the largest decode step that is recorded as a graph."""
TRIED_ROWS = (1, 2, MAX_ROWS)
"""torch compiles a single row apart; the second of these is compiled for any number, and the third shows that it was."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-5, torch.float16: 2**-8}
"""Largest difference between compiled and plain results, relative to their size, or to one; compiled ones round less often."""
PIECES = (normalized, added_and_normalized, rotated, gated)
FAILURES = (RuntimeError, ImportError, OSError, NotImplementedError, subprocess.SubprocessError)
"""What torch raises where there is no compiler or no Triton, or either fails."""


class OpenedLayers(Protocol):
    """What this needs of `model_layers.ModelLayers`."""

    devices: list[torch.device]
    pieces: Pieces

    def tables(self, hidden: torch.Tensor, positions: torch.Tensor) -> Tensors: ...

    def open(self, index: int, hidden: torch.Tensor, tables: Tensors) -> Tensors: ...

    def close(self, index: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor: ...


class CompiledPiece:
    """One of the functions of Pieces: compiled for up to MAX_ROWS rows on devices where that holds, and plain otherwise."""

    def __init__(self, plain: Callable[..., Any], backend: str = "inductor") -> None:
        self._plain, self._compiled = plain, torch.compile(plain, fullgraph=True, backend=backend)
        self._rows: dict[torch.device, int] = {}

    def __call__(self, first: torch.Tensor, *others: Any) -> Any:
        """(rows, …) first; others that are tensors of as many dimensions have as many rows."""
        if len(first) > self._rows.get(first.device, 0):
            return self._plain(first, *others)
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._compiled(first, *others)

    def try_on(self, first: torch.Tensor, *others: Any) -> None:
        """Compile for these tensors, the rows being any number; raises one of FAILURES if it can't be done or doesn't hold."""
        rows = [each for each in (first, *others) if isinstance(each, torch.Tensor) and each.dim() == first.dim()]
        if len(first) > 1:
            for each in rows:
                torch._dynamo.mark_dynamic(each, 0)
        said, expected = self._compiled(first, *others), self._plain(first, *others)
        pairs = zip(said, expected, strict=True) if isinstance(said, tuple) else [(said, expected)]
        if not all(_close(*pair) for pair in pairs):
            raise RuntimeError(f"{self._plain.__name__} differs")

    def use_on(self, device: torch.device) -> None:
        self._rows[device] = MAX_ROWS


def _close(compiled: torch.Tensor, plain: torch.Tensor) -> bool:
    tolerance = TOLERANCE[plain.dtype]
    return torch.allclose(compiled, plain, rtol=tolerance, atol=tolerance)


def can_compile(device: torch.device) -> bool:
    """Whether torch may find Triton and a compiler there; whether they work is seen when they are tried."""
    if device.type != "cuda" or sys.platform == "win32":
        return False
    from torch.utils._triton import has_triton

    return torch.cuda.get_device_capability(device) >= MIN_FUSED_CAPABILITY and has_triton()


@torch.inference_mode()
def compile_pieces(
    layers: OpenedLayers,
    width: int,
    dtype: torch.dtype,
    *,
    allowed: Callable[[torch.device], bool] = can_compile,
    backend: str = "inductor",
) -> bool:
    """Compile the pieces of `layers`, whose hidden state is `width` wide, on every device; returns whether they are used.

    Takes seconds a device, once: torch keeps what it has compiled on disk. What was compiled for an earlier model is forgotten:
    torch would take the other width for one that changes, and compile slower kernels for any width.
    """
    firsts = {device: index for index, device in reversed(list(enumerate(layers.devices[:-1])))}
    if not all(allowed(device) for device in layers.devices):
        return False
    torch.compiler.reset()
    plain, compiled = layers.pieces, [CompiledPiece(each, backend) for each in PIECES]
    layers.pieces = Pieces(*(each.try_and_go_on for each in map(_Trial, compiled)))
    try:
        with _in_this_process():
            for device, index in firsts.items():
                for rows in TRIED_ROWS:
                    _run(layers, index, torch.randn(rows, width, device=device).to(dtype))
    except FAILURES as error:
        log.info("nothing is compiled between products: %s", type(error).__name__, exc_info=error)
        layers.pieces = plain
        return False
    for each in compiled:
        for device in firsts:
            each.use_on(device)
    layers.pieces = Pieces(*compiled)
    return True


class _Trial:
    """Tries a piece on whatever a forward calls it with, and goes on with the plain result."""

    def __init__(self, piece: CompiledPiece) -> None:
        self._piece = piece

    def try_and_go_on(self, *given: Any) -> Any:
        self._piece.try_on(*given)
        return self._piece(*given)


def _run(layers: OpenedLayers, index: int, hidden: torch.Tensor) -> None:
    """Layer `index` with each row attending to nothing but its own value."""
    positions = torch.arange(len(hidden), device=hidden.device)
    queries, _, values = layers.open(index, hidden, layers.tables(hidden, positions))
    attended = values.repeat_interleave(queries.shape[1] // values.shape[1], dim=1).flatten(1)
    layers.close(index, hidden, attended)


@contextmanager
def _in_this_process() -> Iterator[None]:
    """Compile here: the processes that torch would start for it would stay for as long as the app."""
    import torch._inductor.config as inductor

    with inductor.patch(compile_threads=1):
        yield
