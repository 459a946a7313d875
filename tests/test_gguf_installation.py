"""requirements-gguf.txt in an empty environment, and the page that runs with it used in Chromium (`make test-gguf`).

Without GGUF_ENVIRONMENT, a folder for that environment, it is not looked at: installing takes minutes.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.clean_environment import ask_in_chromium, installed
from tests.test_starts import APP, STARTING, started

ENVIRONMENT = os.environ.get("GGUF_ENVIRONMENT")

pytestmark = pytest.mark.skipif(ENVIRONMENT is None, reason="make test-gguf")


@pytest.fixture(scope="module")
def python() -> str:
    return installed(str(ENVIRONMENT), ["-r", APP.with_name("requirements-gguf.txt")])


def test_torch_is_not_there(python: str) -> None:
    code = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, sys.argv[1:])))"
    names = ("torch", "transformers", "accelerate", "bitsandbytes", "safetensors")
    assert subprocess.run([python, "-c", code, *names], timeout=STARTING, check=False).returncode == 0


def test_its_page_is_used(python: str, tmp_path: Path) -> None:
    with started(tmp_path, python=python) as running:
        assert running.get("/")[0] == 200
        ask_in_chromium(f"http://127.0.0.1:{running.port}/")
