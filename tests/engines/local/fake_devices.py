"""Tensors that claim to lie on graphics cards that are not here: they compute as ever, but never together with another card's,
and on an Apple GPU only in what that has."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention.bias import CausalBias
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

CPU = torch.device("cpu")
ACROSS = (torch.Tensor.copy_, torch.Tensor.to, torch.Tensor.cpu)
HOME = (torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.numpy)
ABSENT = (torch.float64, torch.complex128)
"""Types that Apple's GPU does not have."""
HALTING = (torch.sort, torch.argsort, torch.topk, torch.Tensor.sort, torch.Tensor.argsort, torch.Tensor.topk)
HALTING += (torch.cumsum, torch.Tensor.cumsum, torch.searchsorted, torch.multinomial, torch.unique)
"""Operations that it lacks for some types, or on some versions of macOS: nothing of a reply may need them there."""
INDEXING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


def claim(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    """Let `tensor` say that it lies on `place`."""
    tensor._place = place  # type: ignore[attr-defined]
    return tensor


def place_of(tensor: torch.Tensor) -> torch.device:
    return getattr(tensor, "_place", CPU)


class Claims(TorchFunctionMode):
    """While it is entered, tensors have the devices that they claim, and an operation over two of them fails as torch's would."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()
        """Names of the operations on an Apple GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return place_of(args[0])
        if func is torch.Tensor.pin_memory:  # there is nothing to pin it for
            return args[0]
        if func is torch.device:
            return func(*args, **kwargs)
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        if func not in ACROSS:
            used = [each for each in tensors if each.dim() and not isinstance(each, CausalBias)]
            used = used[:1] if func in INDEXING and all(place_of(each) == CPU for each in used[1:]) else used
            if len({place_of(each) for each in used}) > 1:
                raise RuntimeError(f"{func} over {[str(place_of(each)) for each in used]}")
        target = tensors[-1] if func is torch.Tensor.to else tensors[0] if tensors else None
        place = CPU if target is None or func in HOME else place_of(target)
        place = next(devices(args, kwargs), place)
        if place.type == "mps":
            self.used.add(getattr(func, "__name__", str(func)))
            assert func not in HALTING, f"{func} on an Apple GPU"
        args, kwargs = tree_map_only((torch.device, str), on_cpu, (args, kwargs))
        out = func(*args, **kwargs)
        if func in (torch.Tensor.to, torch.Tensor.cpu) and out is tensors[0] and place != place_of(tensors[0]):
            out = out.clone()
        made = [each for each in tree_flatten(out)[0] if isinstance(each, torch.Tensor)]
        if place.type == "mps" and any(each.dtype in ABSENT for each in made):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return tree_map_only(torch.Tensor, lambda tensor: claim(tensor, place), out)


def on_cpu(named: "torch.device | str") -> "torch.device | str":
    """What a call names, with the CPU instead of any device."""
    return CPU if next(devices((named,), {}), None) is not None else named


def devices(args: Any, kwargs: Any) -> Iterator[torch.device]:
    """Those that are named in a call."""
    for each in tree_flatten((args, kwargs))[0]:
        if isinstance(each, torch.device):
            yield each
        elif isinstance(each, str) and each.split(":")[0] in ("cpu", "cuda", "mps"):
            yield torch.device(each)
