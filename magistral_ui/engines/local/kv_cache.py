"""The KV cache of one sequence, in buffers that grow in steps: written in place, cropped at no cost, counted in exact bytes.

Each layer's buffers are on the layer's device. Which tokens they hold is known in `prefix_cache.py` only.
"""

import torch
from torch.nn.functional import pad

from magistral_ui.models.memory import MAX_GROWTH_TOKENS

MIN_GROWTH_TOKENS = 256
"""Tokens by which a buffer grows at least; longer ones grow by a quarter, up to MAX_GROWTH_TOKENS. What is copied grows with the
square of the length, but slowly: at 131,072 tokens Magistral has copied 5 MB per token, while one step reads 30 GB."""


class KVLayer:
    """One layer: keys and values of shape (1, heads, capacity, head_dim), of which the first `length` tokens count."""

    __slots__ = ("_buffers", "_home", "_max_length", "length")

    def __init__(self, max_length: int | None = None) -> None:
        """`max_length` is the greatest length of a sequence: buffers do not grow ahead beyond it."""
        self.length = 0
        self._max_length = max_length
        self._home: torch.device | None = None
        self._buffers: tuple[torch.Tensor, ...] = ()
        """Keys and values; nothing before the first token."""

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values of shape (1, heads, n, head_dim); returns views of all that is held."""
        end = self.length + keys.shape[2]
        if end > self._capacity:
            self._grow(end, keys)
        for buffer, new in zip(self._buffers, (keys, values), strict=True):
            buffer[:, :, self.length : end] = new
        self.length = end
        return self.first(end)

    def first(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first `tokens`, which may be more than are held: the rest is finite and means nothing."""
        keys, values = self._buffers
        short = tokens - self._capacity
        if short > 0:  # at the very end of the longest sequence
            return pad(keys, (0, 0, 0, short)), pad(values, (0, 0, 0, short))
        return keys[:, :, :tokens], values[:, :, :tokens]

    def crop(self, length: int) -> None:
        self.length = min(self.length, length)

    def copy(self, length: int) -> "KVLayer":
        other = KVLayer(self._max_length)
        if self._buffers and length:
            other.append(*self.first(length))
        return other

    def spill(self) -> None:
        """Move to host memory, without the spare room; pinned, if that makes the way back to a GPU faster."""
        if self._buffers:
            self._home = self._buffers[0].device
            self._buffers = tuple(_on_host(each[:, :, : self.length]) for each in self._buffers)

    def restore(self) -> None:
        """Move back to the device it was spilled from."""
        if self._home is not None:
            self._buffers = tuple(each.to(self._home, copy=True) for each in self._buffers)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, spare room included."""
        return sum(each.nbytes for each in self._buffers)

    @property
    def _capacity(self) -> int:
        return self._buffers[0].shape[2] if self._buffers else 0

    def _grow(self, tokens: int, like: torch.Tensor) -> None:
        wanted = max(tokens, self._capacity + min(self._capacity // 4, MAX_GROWTH_TOKENS))
        wanted += -wanted % MIN_GROWTH_TOKENS
        if self._max_length is not None:
            wanted = max(tokens, min(wanted, self._max_length))
        grown = tuple(like.new_zeros((1, like.shape[1], wanted, like.shape[3])) for _ in range(2))
        for buffer, held in zip(grown, self._buffers, strict=False):  # nothing is held before the first token
            buffer[:, :, : self.length] = held[:, :, : self.length]
        self._buffers = grown


class KVCache:
    """All layers of one sequence."""

    __slots__ = ("layers",)

    def __init__(self, layers: int | list[KVLayer], max_length: int | None = None) -> None:
        """`layers` are given, or made: that many, for sequences of at most `max_length` tokens."""
        self.layers = [KVLayer(max_length) for _ in range(layers)] if isinstance(layers, int) else layers

    @property
    def length(self) -> int:
        """Tokens held by every layer; after a forward that broke, the first layers may hold more."""
        return min(layer.length for layer in self.layers)

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens in every layer; this also undoes a forward that broke."""
        for layer in self.layers:
            layer.crop(length)

    def copy(self, length: int) -> "KVCache":
        return KVCache([layer.copy(length) for layer in self.layers])

    def spill(self) -> None:
        for layer in self.layers:
            layer.spill()

    def restore(self) -> None:
        for layer in self.layers:
            layer.restore()

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)


def _on_host(buffer: torch.Tensor) -> torch.Tensor:
    if buffer.device.type == "cuda":
        return torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=True).copy_(buffer)
    return buffer.to("cpu", copy=True)
