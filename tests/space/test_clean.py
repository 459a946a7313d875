"""The gathered folder in an empty environment, installed as a Space's builder does and used in Chromium (`make test-space`).

Without SPACE_ENVIRONMENT, a folder for that environment, it is not looked at: installing takes minutes.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from space.card import front_of
from space.push import gather
from tests.browser.conftest import ARGUMENTS
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
    folder = Path(str(ENVIRONMENT)).absolute()
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    version = front_of((space / "README.md").read_text(encoding="utf-8"))["sdk_version"]
    builders = [f"gradio[oauth,mcp]=={version}", "uvicorn>=0.14.0", "websockets>=10.4", "spaces"]
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = space / "requirements.txt"
    if os.environ.get("SPACE_INDEX") == "own":  # where only one index can be reached
        lines = wanted.read_text(encoding="utf-8").splitlines(keepends=True)
        wanted = space.parent / "requirements.txt"
        wanted.write_text("".join(line for line in lines if not line.startswith("--extra-index-url")), encoding="utf-8")
    subprocess.run([*command, "-r", wanted, *builders], check=True)
    return str(folder / "bin" / "python")


def test_its_page_is_used(space: Path, python: str, tmp_path: Path) -> None:
    sync_api: Any = pytest.importorskip("playwright.sync_api")
    expect = sync_api.expect
    with started(space, tmp_path / "home", python) as (url, _), sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=ARGUMENTS)
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        box = page.locator("#box textarea")
        expect(box).to_be_enabled(timeout=120_000)
        box.fill("What is 487 + 265?")
        box.press("Enter")
        expect(page.locator(".answer").last).to_contain_text("752", timeout=60_000)
        expect(page.locator(".reasoning").last).to_be_visible()
        expect(page.locator("#guest")).to_contain_text("A message can have up to")
        page.reload()
        expect(page.locator(".answer").last).to_contain_text("752", timeout=60_000)
        assert problems == []
        browser.close()
