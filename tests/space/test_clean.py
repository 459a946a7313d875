"""The gathered folder in an empty environment, installed as a Space's builder does and used in Chromium (`make test-space`).

Without SPACE_ENVIRONMENT, a folder for that environment, it is not looked at: installing takes minutes.
"""

import os
from pathlib import Path

import pytest

from space.card import front_of
from space.push import gather
from tests.clean_environment import ask_in_chromium, installed
from tests.space.starting import started

ENVIRONMENT = os.environ.get("SPACE_ENVIRONMENT")

pytestmark = pytest.mark.skipif(ENVIRONMENT is None, reason="make test-space")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space")
    gather(folder, "cpu-basic", {})
    return folder


@pytest.fixture(scope="module")
def python(space: Path) -> str:
    """A Python with nothing but what the builder of a Gradio Space installs: requirements and SDK in one go."""
    version = front_of((space / "README.md").read_text(encoding="utf-8"))["sdk_version"]
    builders = [f"gradio[oauth,mcp]=={version}", "uvicorn>=0.14.0", "websockets>=10.4", "spaces"]
    wanted = space / "requirements.txt"
    if os.environ.get("SPACE_INDEX") == "own":  # where only one index can be reached
        lines = wanted.read_text(encoding="utf-8").splitlines(keepends=True)
        wanted = space.parent / "requirements.txt"
        wanted.write_text("".join(line for line in lines if not line.startswith("--extra-index-url")), encoding="utf-8")
    return installed(str(ENVIRONMENT), ["-r", wanted, *builders])


def test_its_page_is_used(space: Path, python: str, tmp_path: Path) -> None:
    with started(space, tmp_path / "home", python) as (url, _):
        ask_in_chromium(url, "A message can have up to")
