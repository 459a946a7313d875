"""An empty environment, installed with pip, and one question to the page that runs in it, asked in Chromium."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import ARGUMENTS


def installed(environment: str, wanted: Sequence[str | Path]) -> str:
    """The Python of a virtual environment in the folder `environment`, with what pip makes of `wanted`."""
    folder = Path(environment).absolute()
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *wanted], check=True)
    return str(folder / "bin" / "python")


def ask_in_chromium(url: str, shown: str = "") -> None:
    """Ask the demo model for a sum; its answer stays over a reload. `shown` is what visitors are told on the page."""
    sync_api: Any = pytest.importorskip("playwright.sync_api")
    expect = sync_api.expect
    with sync_api.sync_playwright() as playwright:
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
        if shown:
            expect(page.locator("#guest")).to_contain_text(shown)
        page.reload()
        expect(page.locator(".answer").last).to_contain_text("752", timeout=60_000)
        assert problems == []
        browser.close()
