"""A GGUF file on the page: from a hub on loopback into llama.cpp and away again, as its owner does it; nothing is scripted."""

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import close_session
from playwright.sync_api import expect

from tests.browser.steps import ask, card, done, more, reply, set_parameter, visit
from tests.hub.conftest import point_at
from tests.hub.server import Hub, serving
from tests.waiting import TIMEOUT, until

pytest.importorskip("torch")
pytest.importorskip("xllamacpp")

from magistral_ui.engines.base import ModelRequest, Ready
from magistral_ui.engines.gguf.demo_file import demo_files
from magistral_ui.engines.switching import machine as machine_module
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.engines.weights import devices
from magistral_ui.engines.weights.library import ModelLibrary
from magistral_ui.models.cards import MINISTRAL_3_3B
from magistral_ui.ui.model_actions import ModelActions

LOAD_TIMEOUT_MS = 1_000 * TIMEOUT
"""Milliseconds for a tiny model to be downloaded or loaded on the busiest machine."""
REPOSITORY = MINISTRAL_3_3B.gguf_repositories[0]
NAME, KEY = MINISTRAL_3_3B.name, f"{REPOSITORY}:Q4_K_M"
COMMIT = "c" * 40


@dataclass
class Computer:
    """It runs the demo model, and a hub has what stands for a Ministral as GGUF files."""

    engine: SwitchableEngine
    models: ModelActions
    hub: Hub
    cache: Path


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Computer]:
    """It has memory for what the cards tell, and only four bits are fast enough."""
    memory = devices.psutil.virtual_memory()._replace(available=2**39, total=2**39)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(machine_module, "estimated_pace", lambda _, name, *__: 9.0 if name == "Q4_K_M" else 1.0)
    folder = tmp_path / "files"
    folder.mkdir()
    for file, kind in zip(demo_files(), ("Q4_K_M", "BF16-mmproj"), strict=True):
        shutil.copy(file, folder / f"Ministral-3-3B-Reasoning-2512-{kind}.gguf")
    with serving() as hub:
        point_at(monkeypatch, hub.url, tmp_path / "cache")
        hub.add(REPOSITORY, folder, COMMIT)
        engine = SwitchableEngine(ModelRequest("demo", device="cpu", threads=1))
        library = ModelLibrary(engine.repositories_in_use)
        engine.start()
        until(lambda: isinstance(engine.status(), Ready))
        models = ModelActions(engine, lambda: library)
        yield Computer(engine, models, hub, tmp_path / "cache")
        if hub.step:
            hub.step.set()
        models.close()
        engine.close()
    close_session()


def expect_badge(page: Any, model: str, text: str) -> None:
    expect(card(page, model).locator(".badge")).to_have_text(text, timeout=LOAD_TIMEOUT_MS)


def test_a_gguf_file_is_downloaded_resumed_switched_to_unloaded_and_removed(
    computer: Computer, page: Any, serve: Any
) -> None:
    visit(page, serve(computer.engine, models=computer.models))
    set_parameter(page, "temperature", 0)
    set_parameter(page, "max_tokens", 200)
    entry = card(page, NAME)
    expect(entry.locator("p").first).to_contain_text("4-bit (Q4_K_M) · ", timeout=LOAD_TIMEOUT_MS)

    # Download, pause, and resume where it was.
    computer.hub.step = threading.Event()
    entry.get_by_role("button", name=f"Download: {NAME}").click()
    until(lambda: bool(list(computer.cache.glob("*/blobs/*.partial"))))
    expect(entry).to_contain_text(re.compile("Downloading: [1-9]"), timeout=LOAD_TIMEOUT_MS)
    entry.get_by_role("button", name=f"Pause: {NAME}").click()
    computer.hub.step.set()
    expect(entry).to_contain_text("Paused: ", timeout=LOAD_TIMEOUT_MS)
    computer.hub.step = None
    entry.get_by_role("button", name=f"Resume: {NAME}").click()
    expect(entry).to_contain_text("on disk", timeout=LOAD_TIMEOUT_MS)

    # It runs, and says so.
    entry.get_by_role("button", name=f"Use: {NAME}").click()
    expect_badge(page, NAME, "In use")
    for fact in (KEY, "llama.cpp", "KV cache"):
        expect(page.locator("#model dl")).to_contain_text(fact)
    ask(page, "What is 17 + 25?")
    expect(done(page).locator(".answer")).to_contain_text("42")
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Details").click()
    details = page.get_by_role("dialog", name="Details")
    for fact in (NAME, KEY, COMMIT, "llama.cpp"):
        expect(details).to_contain_text(fact)
    details.get_by_role("button", name="Close").click()
    expect(entry.get_by_role("button", name=f"Remove: {NAME}")).to_have_count(0)

    # Unloaded, the next message loads it again.
    entry.get_by_role("button", name=f"Free memory: {NAME}").click()
    expect_badge(page, NAME, "Unloaded")
    ask(page, "What is 20 + 3?")
    expect(done(page).locator(".answer")).to_contain_text("23", timeout=LOAD_TIMEOUT_MS)
    expect_badge(page, NAME, "In use")

    # Back to the demo model; then it can be removed.
    card(page, "Demo model").get_by_role("button", name="Use: Demo model").click()
    expect_badge(page, "Demo model", "In use")
    entry.get_by_role("button", name=f"Remove: {NAME}").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(entry).to_contain_text("to download", timeout=LOAD_TIMEOUT_MS)
    expect(page.locator(".turn.reply")).to_have_count(2)
