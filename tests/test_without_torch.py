"""The whole app where only requirements-gguf.txt is installed: it says what fits, lists models, and answers with a GGUF file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from gradio_client import Client

from magistral_ui.models.cards import DEMO
from tests.test_starts import APP, Started, started
from tests.without_torch import MISSING, python_path

TIMEOUT = 300.0
"""Seconds for a command on the busiest machine."""


def variables(folder: Path, *also: str) -> dict[str, str]:
    path = python_path(folder / "site", *also)
    return {**os.environ, "HOME": str(folder), "HF_HOME": str(folder / "hub"), "PYTHONPATH": path}


def ended(folder: Path, *arguments: str, also: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, *arguments], variables(folder, *also)
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)


def test_it_looks_as_if_torch_were_not_installed(tmp_path: Path) -> None:
    code = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, sys.argv[1:])))"
    assert ended(tmp_path, "-c", code, *MISSING).returncode == 0
    assert ended(tmp_path, "-c", "import torch").returncode == 1


def test_help_is_printed(tmp_path: Path) -> None:
    told = ended(tmp_path, str(APP), "--help")
    assert told.returncode == 0, told.stderr
    assert "--kv-type" in told.stdout


def test_the_plan_of_this_machine_is_begun(tmp_path: Path) -> None:
    """Timing all models takes minutes where other tests run, too, so only the table's head is waited for."""
    process = subprocess.Popen(
        [sys.executable, str(APP), "--plan"],
        env=variables(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in iter(process.stdout.readline, ""):
        lines.append(line)
        if "Tokens/s" in line:  # the table for this machine begins
            break
    process.terminate()
    _, errors = process.communicate(timeout=TIMEOUT)
    assert "Tokens/s" in lines[-1], errors
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_the_doctor_finds_nothing_to_mend(tmp_path: Path) -> None:
    told = ended(tmp_path, str(APP), "doctor")
    assert told.returncode == 0, told.stdout
    assert "torch: note | doctor_no_torch\n" in told.stdout
    assert "llama-reply: ok | " in told.stdout
    assert "forward: skipped\n" in told.stdout
    assert "unchecked |" not in told.stdout
    assert str(tmp_path) not in told.stdout


def test_safetensors_get_a_sentence_with_the_two_remedies(tmp_path: Path) -> None:
    told = ended(tmp_path, str(APP), "--model", "ministral-3-8b", "--precision", "nf4")
    assert told.returncode == 2, told.stderr
    assert told.stderr.count("\n") == 1
    assert "pip install -r requirements.txt" in told.stderr
    assert "--model mistralai/Ministral-3-8B-Reasoning-2512-GGUF" in told.stderr


def test_without_llama_cpp_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    told = ended(tmp_path, str(APP), "--model", "demo", also=("xllamacpp",))
    assert told.returncode == 2, told.stderr
    assert told.stderr.count("\n") == 1
    assert "pip install -r requirements-gguf.txt" in told.stderr


NAMED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Loading, ModelRequest, Ready
from magistral_ui.engines.switching.switchable import SwitchableEngine
if __name__ == "__main__":
    engine = SwitchableEngine(ModelRequest("demo", threads=1))
    engine.start()
    while isinstance(engine.status(), Loading):
        time.sleep(0.02)
    status = engine.status()
    assert isinstance(status, Ready), status
    prompt = Prompt(engine.card.system(), (UserTurn("What is 487 + 265?"),))
    generation = engine.submit(GenerationRequest(prompt, SamplingParams(temperature=0.0, seed=1), "ann"))
    assert generation.wait(300)
    print(status.info.source, generation.reasoning, generation.answer)
    engine.close()
"""


def test_the_demo_model_by_its_name_is_its_gguf_file(tmp_path: Path) -> None:
    told = ended(tmp_path, "-c", NAMED, str(APP.parent))
    assert told.returncode == 0, told.stderr
    assert "752" in told.stdout


def test_its_page_answers_with_the_demo_model_s_gguf_file(tmp_path: Path) -> None:
    path = python_path(tmp_path / "site")
    with started(tmp_path, PYTHONPATH=path, HF_HOME=str(tmp_path / "hub"), OMP_NUM_THREADS="1") as running:
        assert running.get("/")[0] == 200
        until_ready(running)
        url = f"http://127.0.0.1:{running.port}/"
        client = Client(url, verbose=False, httpx_kwargs={"timeout": TIMEOUT})
        message: Any = {"text": "What is 487 + 265?", "files": []}
        reply = client.predict(message, {"temperature": 0.0, "seed": 1}, api_name="/chat")
        client.close()
        assert "752" in reply["answer"]
        assert reply["reasoning"]
        with httpx.Client(base_url=url, trust_env=False, timeout=TIMEOUT) as page:
            listed = page.post("/magistral/act/models/list", json={"place": {}, "data": {}}).json()["models"]
        assert listed["switchable"], listed
        assert listed["current"]["key"] == DEMO.key
        assert listed["current"]["state"] == "ready"
        assert len(listed["models"]) >= 5


def until_ready(running: Started) -> None:
    until = time.monotonic() + TIMEOUT
    while (status := json.loads(running.get("/healthz")[1])["status"]) != "ready":
        assert status == "loading", running.told()
        assert time.monotonic() < until, "the model is not loaded"
        time.sleep(0.1)
