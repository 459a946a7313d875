"""What a machine has free for both libraries, once the model that runs has been freed."""

import pytest
from torch import cuda

from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.switching.machine import Machine, freed
from magistral_ui.engines.weights.devices import Device
from magistral_ui.models.memory import GIB

CPU, CUDA = Device("cpu", "CPU", 8 * GIB, 16 * GIB), Device("cuda", "RTX", 4 * GIB, 24 * GIB)
LLAMA_CPU = LlamaDevice("cpu", "CPU", "CPU", 8 * GIB, 16 * GIB)
LLAMA_CUDA = LlamaDevice("gpu", "CUDA", "RTX", 4 * GIB, 24 * GIB)


@pytest.mark.parametrize(
    ("torch", "llama", "engine", "of_torch", "of_llama"),
    [
        (CPU, LLAMA_CPU, "llama.cpp", 10, 10),
        (CPU, LLAMA_CPU, "transformers", 10, 10),
        (CUDA, LLAMA_CUDA, "llama.cpp", 6, 6),
        (CUDA, LLAMA_CPU, "llama.cpp", 4, 10),
        (CUDA, LLAMA_CPU, "transformers", 6, 8),
        (None, LLAMA_CPU, "llama.cpp", None, 10),
        (CPU, None, "transformers", 10, None),
    ],
)
def test_memory_is_freed_where_the_engine_holds_it(
    torch: Device | None,
    llama: LlamaDevice | None,
    engine: str,
    of_torch: int | None,
    of_llama: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda, "memory_reserved", lambda _: 2 * GIB)
    after = freed(Machine(torch, llama), 2 * GIB, engine)
    assert (after.torch and after.torch.free) == (of_torch and of_torch * GIB)
    assert (after.llama and after.llama.free) == (of_llama and of_llama * GIB)
