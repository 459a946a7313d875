"""Records computations as CUDA graphs, and tells for which row counts that pays; what is recorded it does not know."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import torch

from magistral_ui.engines.weights.fused_products import fused_buckets
from magistral_ui.models.graph_memory import BUCKETS, MIN_GRAPH_CAPABILITY

Compute = Callable[[], torch.Tensor]
Recording = tuple[Callable[[], None], torch.Tensor]
"""What replays a computation, and the tensor that holds its result after each replay."""
WARM_UPS = 2
"""Runs before a recording, in which libraries choose their kernels and allocate what they keep."""


class Recorder(Protocol):
    """Records computations; CudaRecorder, or a test's stand-in."""

    def __call__(self, compute: Compute, device: torch.device) -> Recording: ...

    def forget(self) -> None:
        """Free the memory of all recordings, none of which is replayed again."""

    def reserved(self, device: torch.device) -> int:
        """Bytes that the allocator holds on the device."""


def recorded_buckets(layer: Any, device: torch.device) -> tuple[int, ...]:
    """Row counts to record on a CUDA device, for a model with such a `layer`."""
    capability = torch.cuda.get_device_capability(device)
    linears = [*layer.self_attn.children(), *layer.mlp.children()]
    weights = [each.weight for each in linears if hasattr(each, "weight")]
    if capability < MIN_GRAPH_CAPABILITY or any(weight.dtype == torch.int8 for weight in weights):
        return ()  # each int8 product waits for the host, which a recording cannot
    states = [state for weight in weights if (state := getattr(weight, "quant_state", None)) is not None]
    if not states:
        return BUCKETS
    return fused_buckets([(state.shape[0], state.shape[1]) for state in states], capability, device.index or 0)


class CudaRecorder:
    """Records computations as CUDA graphs; those of a device on one stream of that device and in one memory pool."""

    def __init__(self) -> None:
        self._places: dict[torch.device, tuple[torch.cuda.Stream, Any]] = {}
        self._graphs: list[torch.cuda.CUDAGraph] = []
        """All that were made, also those that failed: torch frees the workspace of a stream with any of its graphs."""

    def __call__(self, compute: Compute, device: torch.device) -> Recording:
        """Record after warm-up runs on the same stream, as torch requires, so that cuBLAS has its workspace before.

        Torch's default stream for recording belongs to the device of the first recording, so a stream is passed. When a recording
        breaks, torch alone would stay on it, and keep allocating from the pool.
        """
        with torch.cuda.device(device):
            if device not in self._places:
                made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
                self._places[device] = made, torch.cuda.graph_pool_handle()
            stream, pool = self._places[device]
            graph = torch.cuda.CUDAGraph()
            self._graphs.append(graph)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    compute()
                try:
                    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                        result = compute()
                except RuntimeError:
                    with suppress(AttributeError, RuntimeError):
                        torch._C._cuda_endAllocateToPool(device.index or 0, pool)
                    raise
            torch.cuda.current_stream(device).wait_stream(stream)
        return graph.replay, result

    def forget(self) -> None:
        self._graphs.clear()
        self._places.clear()

    def reserved(self, device: torch.device) -> int:
        return torch.cuda.memory_reserved(device)
