"""Attention of a forward that reads prompts, by a kernel that takes all its sequences in one call."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from magistral_ui.engines.local.attention import write
from magistral_ui.engines.local.kv_cache import KVCache, PagePool
from magistral_ui.engines.local.paged_attention import RaggedAttention, RaggedInputs, ragged_inputs


@dataclass(slots=True)
class PromptLayout:
    """What attention takes of one forward, the same for all layers of a device."""

    slots: dict[torch.device, torch.Tensor]
    """(rows,): where each row's key and value go in the pool, on each device of the model."""
    inputs: dict[torch.device, RaggedInputs]


class PromptAttention:
    """Attention over a pool, a call for all sequences; used like SegmentAttention."""

    def __init__(
        self, pool: PagePool, devices: list[torch.device], kernels: Mapping[torch.device, RaggedAttention]
    ) -> None:
        """`devices` are those of the layers, in order."""
        self._pool, self._devices, self._kernels = pool, devices, kernels

    def layout(self, parts: list[tuple[KVCache, int]], slots: torch.Tensor) -> PromptLayout:
        """For each part (a cache, in which room is reserved, and a number of new tokens) in the order of the rows."""
        counts = [count for _, count in parts]
        seen = [cache.length + count for cache, count in parts]
        pages = [cache.pages for cache, _ in parts]
        places = dict.fromkeys(self._devices)
        return PromptLayout(
            {place: slots.to(place, non_blocking=True) for place in places},
            {place: ragged_inputs(counts, seen, pages, place) for place in places},
        )

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: PromptLayout,
        layer: int,
        scale: float,
    ) -> torch.Tensor:
        """Attention output of shape (rows, heads × head_dim); the new keys and values go into the pool.

        `queries` is (rows, heads, head_dim); `keys` and `values` are (rows, kv_heads, head_dim).
        """
        device, pool = self._devices[layer], self._pool.layer(layer)
        write(pool, keys, values, layout.slots[device])
        return self._kernels[device].attend_ragged(queries, *pool, layout.inputs[device], scale)
