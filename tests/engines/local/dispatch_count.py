"""Counts what a piece of work asks of torch: calls of its dispatcher, and how often the host would wait for a result.

On a processor nothing has to be waited for, so what would wait on a graphics card is counted there: every call that hands a
tensor's numbers to Python, and every operation whose result has a shape that depends on numbers.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READING = (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__)
READING += (torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__bool__, torch.Tensor.__index__)
READING += (torch.Tensor.__contains__, torch.Tensor.equal, torch.equal)
aten = torch.ops.aten
OF_UNKNOWN_SHAPE = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive)
OF_UNKNOWN_SHAPE += (aten.bincount,)


class Reads(TorchFunctionMode):
    """Counts the calls that hand numbers to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.reading = False
        """Whether one of them runs: what it calls in turn is the same wait."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in READING:
            return func(*args, **(kwargs or {}))
        self.count += 1
        self.reading = True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.reading = False


class Calls(TorchDispatchMode):
    """Counts operations that are made of no others, and those among them that have to wait."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.count = self.waits = 0
        self._reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction(), self:
            made_of_others = func.decompose(*args, **kwargs)
        if made_of_others is not NotImplemented:
            return made_of_others
        self.count += 1
        out = func(*args, **kwargs)
        self.waits += not self._reads.reading and waits(func.overloadpacket, args, kwargs, out)
        return out


def waits(packet: Any, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether the host has the result of an operation only after the device has done all that came before."""
    if packet in (aten.index, aten.index_put, aten.index_put_):
        return any(each is not None and each.dtype == torch.bool for each in args[1])
    if packet is aten.repeat_interleave:
        return kwargs.get("output_size") is None
    if packet in (aten._to_copy, aten.copy_):
        source, target = (args[1], args[0]) if packet is aten.copy_ else (args[0], out)
        return source.device.type != "cpu" and target.device.type == "cpu"
    return packet is aten._local_scalar_dense or packet in OF_UNKNOWN_SHAPE


class DispatchCount:
    """While it is entered, it counts."""

    def __init__(self) -> None:
        self._reads = Reads()
        self._calls = Calls(self._reads)

    @property
    def calls(self) -> int:
        """Of the dispatcher."""
        return self._calls.count

    @property
    def syncs(self) -> int:
        """Results for which the host would wait: scalars, copies to the host, shapes that depend on numbers."""
        return self._reads.count + self._calls.waits

    def __enter__(self) -> "DispatchCount":
        self._calls.__enter__()
        self._reads.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._reads.__exit__(*error)
        self._calls.__exit__(*error)
