"""Runs the app on the spaces package's own ZeroGPU side, on a machine without a GPU.

    python -m tests.engines.zerogpu.stand_in FOLDER

Everything is the package's: the decorator, the stand-in for a GPU under torch, the weights that are packed at launch, the forked
processes. Only what touches a card is replaced, in the forked process: weights are unpacked to the host's memory instead.
"""

import os
import runpy
import sys
from collections.abc import Callable
from typing import Any

import torch


def pretend() -> None:
    """torch as if it was built for CUDA; must be called before the spaces package is imported."""
    torch.version.cuda = "12.8"
    torch._C._cuda_init = lambda: None  # type: ignore[attr-defined]
    torch.cuda._is_in_bad_fork = bool  # type: ignore[attr-defined]  # asked in another process, so it must have a name


def replace_the_card() -> None:
    """In the forked process, there is no card to open, and the weights come to where the process computes."""
    import spaces.zero.torch as zero
    from spaces.zero.torch import patching

    def move(callback: Callable[[int], Any] | None = None) -> None:
        for pack in patching.tensor_packs:
            unpack(pack)

    zero.init = lambda uuid: None
    zero.move = move


def unpack(pack: Any) -> None:
    """Each tensor of a pack, read from its file, in place of what stood for it."""
    with open(pack.path(), "rb") as packed:
        for tensor, size, aligned in [entry for batch in pack.batches for entry in batch] + pack.big_tensors:
            content = bytearray(packed.read(aligned)[:size])
            flat = torch.frombuffer(content, dtype=torch.uint8)
            real = torch.tensor([], dtype=tensor.dtype).set_(flat.untyped_storage(), 0, tensor.shape, tensor.stride())
            for fake in pack.fakes[tensor]:
                fake.data = real


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.path.insert(0, os.getcwd())
    sys.argv = ["app.py"]
    pretend()
    import gradio  # noqa: F401  # as the app does, before it imports the spaces package
    import spaces  # noqa: F401

    replace_the_card()
    runpy.run_path("app.py", run_name="__main__")
