"""Tensors that claim to lie on graphics cards that are not here: they compute as ever, but never together with another card's."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention.bias import CausalBias
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

CPU = torch.device("cpu")
ACROSS = (torch.Tensor.copy_, torch.Tensor.to, torch.Tensor.cpu)
INDEXING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


def claim(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    """Let `tensor` say that it lies on `place`."""
    tensor._place = place  # type: ignore[attr-defined]
    return tensor


def place_of(tensor: torch.Tensor) -> torch.device:
    return getattr(tensor, "_place", CPU)


class Claims(TorchFunctionMode):
    """While it is entered, tensors have the devices that they claim, and an operation over two of them fails as torch's would."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return place_of(args[0])
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        if func not in ACROSS:
            used = [each for each in tensors if each.dim() and not isinstance(each, CausalBias)]
            used = used[:1] if func in INDEXING and all(place_of(each) == CPU for each in used[1:]) else used
            if len({place_of(each) for each in used}) > 1:
                raise RuntimeError(f"{func} over {[str(place_of(each)) for each in used]}")
        target = tensors[-1] if func is torch.Tensor.to else tensors[0] if tensors else None
        place = next(devices(args, kwargs), CPU if target is None else place_of(target))
        args, kwargs = tree_map_only(torch.device, lambda _: CPU, (args, kwargs))
        out = func(*args, **kwargs)
        if func is torch.Tensor.to and tensors and out is tensors[0] and place != place_of(tensors[0]):
            out = out.clone()
        return tree_map_only(torch.Tensor, lambda tensor: claim(tensor, place), out)


def devices(args: Any, kwargs: Any) -> Iterator[torch.device]:
    """Those that are named in a call."""
    for each in tree_flatten((args, kwargs))[0]:
        if isinstance(each, torch.device):
            yield each
