"""What llama.cpp's child really holds, beside what was planned: several shapes, quantizations, and pools of keys and values."""

import http.client
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from magistral_ui.engines.gguf.supervisor import LlamaServer, ServerSettings, Supervisor
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_buffers import PROCESS_BYTES, batch_of
from magistral_ui.models.gguf_file import inspect_gguf
from magistral_ui.models.gguf_plan import plan_gguf
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import ModelShape
from tests.servers.random_gguf import write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process holds")

NARROW = ModelShape(131_072, 512, 1_536, 4, 8, 4, 64, False, 65_536)
WIDE = replace(NARROW, hidden=1_024, intermediate=5_120, layers=3, kv_heads=8, head_dim=128)
PROCESS, TOLERANCE = 5 * 2**24, 2**24
"""Bytes of the vocabulary and the process itself, and by how much systems differ in them."""
PROMPT_TOKENS = 600
"""More than two batches, so that all buffers are in use."""


def ask(server: LlamaServer) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=300)
    body = {"prompt": [1_000 + n for n in range(PROMPT_TOKENS)], "n_predict": 4, "temperature": 0}
    connection.request("POST", "/completion", json.dumps(body), {"Authorization": f"Bearer {server.key}"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()


def own_bytes(pid: int) -> int:
    """What the process holds itself, without pages of files."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.parametrize(
    ("shape", "quantization", "context", "kv_type"),
    [
        (NARROW, "Q8_0", 16_384, "f16"),
        (NARROW, "Q4_K_M", 65_536, "f16"),
        (WIDE, "BF16", 16_384, "f16"),
        (WIDE, "Q6_K", 65_536, "q8_0"),
        (WIDE, "Q4_0", 32_768, "q8_0"),
    ],
)
def test_a_child_holds_what_was_planned(
    tmp_path: Path, shape: ModelShape, quantization: str, context: int, kv_type: str
) -> None:
    file = tmp_path / "model.gguf"
    write(file, shape, quantization, sparse=True)
    facts, _ = inspect_gguf(file)
    place = DeviceBudget("cpu", 64 * GIB, 64 * GIB)
    plan = plan_gguf(facts.shape, facts.weights, place, kv_type=kv_type, context=context)
    assert plan.context == context
    settings = ServerSettings(
        file,
        context=plan.kv_bytes // plan.kv_per_token,
        slots=plan.slots,
        batch=batch_of("cpu"),
        kv_type=plan.kv_type,
        threads=1,
    )
    supervisor = Supervisor(settings, lambda _: None, threading.Event())
    try:
        server = supervisor.start()
        ask(server)
        held = own_bytes(server.pid)
    finally:
        supervisor.close()
    # The weights are the file's own pages, or rearranged for this processor, all but the embedding.
    arranged = plan.weights - facts.weights.embedding
    beside = plan.working - PROCESS_BYTES + plan.kv_bytes
    expected = min((beside, beside + arranged), key=lambda each: abs(held - each - PROCESS))
    assert held == pytest.approx(expected + PROCESS, rel=0.05, abs=TOLERANCE)
