"""Keys and values of one sequence, in buffers that grow in steps: written in place, cropped at no cost, counted in exact bytes.

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

    __slots__ = ("_home", "_keys", "_most", "_values", "length")

    def __init__(self, most: int | None = None) -> None:
        """`most` is the greatest length of a sequence: buffers do not grow ahead beyond it."""
        self.length = 0
        self._most = most
        self._home: torch.device | None = None
        self._keys: torch.Tensor | None = None
        self._values: torch.Tensor | None = None

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values of shape (1, heads, n, head_dim); returns views of all that is held."""
        end = self.length + keys.shape[2]
        if self._keys is None or self._values is None or end > self._keys.shape[2]:
            self._grow(end, keys)
        assert self._keys is not None
        assert self._values is not None
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    def first(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first `tokens`, which may be more than are held: the rest is finite and means nothing."""
        assert self._keys is not None
        assert self._values is not None
        short = tokens - self._keys.shape[2]
        if short > 0:  # at the very end of the longest sequence
            return tuple(pad(each, (0, 0, 0, short)) for each in (self._keys, self._values))  # type: ignore[return-value]
        return self._keys[:, :, :tokens], self._values[:, :, :tokens]

    def crop(self, length: int) -> None:
        self.length = min(self.length, length)

    def copy(self, length: int) -> "KVLayer":
        other = KVLayer(self._most)
        if self._keys is not None and self._values is not None and length:
            other.append(self._keys[:, :, :length], self._values[:, :, :length])
        return other

    def spill(self) -> None:
        """Move to host memory, without the spare room; pinned, if that makes the way back to a GPU faster."""
        if self._keys is not None and self._values is not None:
            self._home = self._keys.device
            self._keys = _on_host(self._keys[:, :, : self.length])
            self._values = _on_host(self._values[:, :, : self.length])

    def restore(self) -> None:
        """Move back to the device it was spilled from."""
        if self._keys is not None and self._values is not None and self._home is not None:
            self._keys = self._keys.to(self._home, copy=True)
            self._values = self._values.to(self._home, copy=True)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, spare room included."""
        return 0 if self._keys is None else 2 * self._keys.numel() * self._keys.element_size()

    def _grow(self, tokens: int, like: torch.Tensor) -> None:
        capacity = 0 if self._keys is None else self._keys.shape[2]
        wanted = max(tokens, capacity + min(capacity // 4, MAX_GROWTH_TOKENS))
        wanted += -wanted % MIN_GROWTH_TOKENS
        if self._most is not None:
            wanted = max(tokens, min(wanted, self._most))
        keys = like.new_zeros((1, like.shape[1], wanted, like.shape[3]))
        values = torch.zeros_like(keys)
        if self._keys is not None and self._values is not None:
            keys[:, :, : self.length] = self._keys[:, :, : self.length]
            values[:, :, : self.length] = self._values[:, :, : self.length]
        self._keys, self._values = keys, values


class KVCache:
    """All layers of one sequence."""

    __slots__ = ("layers",)

    def __init__(self, layers: int | list[KVLayer], most: int | None = None) -> None:
        """`layers` are given, or made: that many, for sequences of at most `most` tokens."""
        self.layers = [KVLayer(most) for _ in range(layers)] if isinstance(layers, int) else layers

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
