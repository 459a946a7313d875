"""Large random GGUF files of tests and benchmarks are whole, and llama.cpp computes finite numbers with them."""

import json
import math
from pathlib import Path

import pytest

from magistral_ui.models.shape import ModelShape
from tests.engines.gguf.children import ask, serving
from tests.servers.random_gguf import write

TINY = ModelShape(2_048, 256, 512, 2, 4, 2, 64, tied=False, context_length=4_096)
QUANTS = [
    "Q2_K",
    "Q3_K_S",
    "Q3_K_M",
    "Q4_0",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_0",
    "Q5_K_S",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
    "BF16",
    "F16",
]


@pytest.mark.parametrize("quant", QUANTS)
def test_each_type_loads_and_computes(tmp_path: Path, quant: str) -> None:
    file = tmp_path / "random.gguf"
    write(file, TINY, quant)
    with serving(file, context=512, slots=1) as server:
        body = {"prompt": [1, 3, 1_500, 4], "n_predict": 60, "n_probs": 5, "ignore_eos": True, "seed": 1}
        status, said = ask(server, "/completion", body)
    assert status == 200
    numbers = [each["logprob"] for each in json.loads(said)["completion_probabilities"]]
    assert numbers, "those of whole characters are told"
    assert all(isinstance(each, float) and math.isfinite(each) for each in numbers)


def test_a_sparse_file_loads(tmp_path: Path) -> None:
    file = tmp_path / "sparse.gguf"
    write(file, TINY, "Q4_K_M", sparse=True)
    with serving(file, context=512, slots=1) as server:
        assert ask(server, "/completion", {"prompt": [1, 3, 1_500, 4], "n_predict": 2})[0] == 200
