"""Chooses the kernels that read pages on the card it meets: the first that agree with the reference there."""

import importlib
import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from magistral_ui.engines.local.attention_trial import Trial
from magistral_ui.engines.local.paged_attention import GatheredAttention, PagedAttention, RaggedAttention
from magistral_ui.engines.local.paged_kernels import FlashInferAttention, VarlenAttention
from magistral_ui.engines.weights.devices import MIN_FUSED_CAPABILITY
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.load_errors import LIBRARY_ERRORS
from magistral_ui.errors import first_line

if TYPE_CHECKING:
    from magistral_ui.engines.local.decoder import Decoder

log = logging.getLogger(__name__)

T = TypeVar("T")
Kernel = VarlenAttention | FlashInferAttention
KERNEL_ERRORS = (*LIBRARY_ERRORS, subprocess.SubprocessError)
"""What a kernel may raise; the last, if the compiler of a kernel does not run."""


@dataclass(frozen=True, slots=True)
class ChosenAttention:
    """The kernels of one device."""

    decode: PagedAttention
    ragged: RaggedAttention | None
    """None: no kernel does it, and prompts are read sequence by sequence."""


def choose_paged_attention(
    pool_shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    heads: int,
    width: int,
    kernels: Sequence[tuple[str, Callable[[], Kernel]]] | None = None,
) -> ChosenAttention:
    """The kernels for pools of `pool_shape` (pages, PAGE_TOKENS, kv_heads, head_dim) on a CUDA `device`.

    `width` is the number of pages in a row's table, by which kernels split sequences. What raises an error or gives other
    results is passed over with a line in the log. It takes about 150 MiB for a moment, and calls each kernel some ten times; on a
    processor and on an Apple GPU it has no business, they have no such kernels. `kernels` are names and makers of those that are
    tried, in order.
    """
    trial = _attempt("without memory for a trial, every kernel", lambda: Trial(pool_shape, dtype, device, heads, width))
    decode: Kernel | None = None
    ragged: Kernel | None = None
    makers = [] if trial is None else kernels or _kernels(pool_shape, dtype, device, heads, trial.width)
    for name, make in makers:
        kernel = _attempt(name, make)
        if kernel is None or trial is None:
            continue
        if decode is None and _passes(trial.decode, kernel, "decode steps"):
            decode = kernel
        if ragged is None and _passes(trial.ragged, kernel, "prompts"):
            ragged = kernel
        if decode is not None and ragged is not None:
            break
    del trial
    empty_device_cache()
    chosen = ChosenAttention(decode or GatheredAttention(), ragged)
    log.info(
        "attention over pages: %s for decode steps, %s for prompts",
        chosen.decode.name,
        ragged.name if ragged else "SDPA",
    )
    return chosen


def use_kernels(decoder: "Decoder", choose: Callable[..., ChosenAttention] = choose_paged_attention) -> None:
    """Choose kernels for each device of a model whose pool is open, and let its forwards use them.

    `choose` is `choose_paged_attention`.
    """
    chosen: dict[torch.device, ChosenAttention] = {}
    for index, device in enumerate(decoder.layers.devices[:-1]):
        if device not in chosen:
            shape = decoder.pool.layer(index)[0].shape
            heads = decoder.config.num_attention_heads
            chosen[device] = choose(shape, decoder.dtype, device, heads, decoder.width)
    decoder.decode_with({device: each.decode for device, each in chosen.items()})
    ragged = {device: each.ragged for device, each in chosen.items() if each.ragged is not None}
    if len(ragged) == len(chosen):
        decoder.read_with(ragged)


def _kernels(
    pool_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, heads: int, width: int
) -> list[tuple[str, Callable[[], Kernel]]]:
    """torch's own first: it plans nothing on the host, and nothing is compiled."""

    def flashinfer() -> Kernel:
        module = importlib.import_module("flashinfer")
        tensor_cores = dtype == torch.float16 or torch.cuda.get_device_capability(device) >= MIN_FUSED_CAPABILITY
        return FlashInferAttention(module, device, dtype, heads, pool_shape, width, tensor_cores)

    return [("torch's FlashAttention", lambda: VarlenAttention(device)), ("FlashInfer", flashinfer)]


def _passes(trial: Callable[[Kernel], None], kernel: Kernel, what: str) -> bool:
    def pass_trial() -> bool:
        trial(kernel)
        return True

    return _attempt(f"{kernel.name} for {what}", pass_trial) is True


def _attempt(what: str, do: Callable[[], T]) -> T | None:
    """What `do` returns, or None, with a line in the log, if it fails."""
    try:
        return do()
    except KERNEL_ERRORS as error:
        log.info("attention over pages: %s is passed over: %s", what, first_line(error))
        return None
