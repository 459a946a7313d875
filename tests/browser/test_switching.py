"""A real model on the page: from a hub on loopback into the engine and away again, as its owner does it; nothing is scripted."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import close_session
from playwright.sync_api import expect

from tests.browser.conftest import visitor
from tests.browser.steps import ask, box, card, done, more, reply, set_parameter, visit
from tests.hub.conftest import point_at
from tests.hub.server import Hub, serving
from tests.waiting import TIMEOUT, until

pytest.importorskip("torch")

from magistral_ui.engines.base import ModelRequest, Ready
from magistral_ui.engines.local.executor import Executor
from magistral_ui.engines.switching import machine as machine_module
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.engines.weights import devices
from magistral_ui.engines.weights.library import ModelLibrary
from magistral_ui.models.cards import MINISTRAL_3_3B
from magistral_ui.ui.model_actions import ModelActions
from tests.hub.checkpoints import make_repository

LOAD_TIMEOUT_MS = 1_000 * TIMEOUT
"""Milliseconds for a tiny model to be downloaded or loaded on the busiest machine."""


@dataclass
class Machine:
    """A computer with the demo model, and a hub that has a tiny Ministral."""

    engine: SwitchableEngine
    models: ModelActions
    hub: Hub
    cache: Path
    step: threading.Event
    """While it is cleared, replies wait between two tokens."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """It has memory for what the cards tell, and nothing needs to be timed."""
    memory = devices.psutil.virtual_memory()._replace(available=2**39, total=2**39)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(machine_module, "has_llama_cpp", lambda: False)
    monkeypatch.setattr(machine_module, "estimated_pace", lambda *_: 9.0)
    step, run = threading.Event(), Executor.run
    step.set()
    monkeypatch.setattr(Executor, "run", lambda self, rows: step.wait(TIMEOUT) and run(self, rows))
    with serving() as hub:
        point_at(monkeypatch, hub.url, tmp_path / "cache")
        folder = make_repository(tmp_path / "ministral", MINISTRAL_3_3B)
        hub.add(str(MINISTRAL_3_3B.repository), folder, MINISTRAL_3_3B.revision or "")
        engine = SwitchableEngine(ModelRequest("demo", device="cpu", threads=1))
        library = ModelLibrary(engine.repositories_in_use)
        engine.start()
        until(lambda: isinstance(engine.status(), Ready))
        models = ModelActions(engine, lambda: library)
        yield Machine(engine, models, hub, tmp_path / "cache", step)
        step.set()
        if hub.step:
            hub.step.set()
        models.close()
        engine.close()
    close_session()


def press(page: Any, model: str, name: str) -> None:
    card(page, model).get_by_role("button", name=f"{name}: {model}").click()


def expect_badge(page: Any, model: str, text: str) -> None:
    expect(card(page, model).locator(".badge")).to_have_text(text, timeout=LOAD_TIMEOUT_MS)


def details_of(page: Any) -> Any:
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Details").click()
    return page.get_by_role("dialog", name="Details")


def test_a_model_is_downloaded_switched_to_asked_unloaded_and_removed(
    machine: Machine, page: Any, serve: Any, browser: Any
) -> None:
    name = MINISTRAL_3_3B.name
    url = serve(machine.engine, models=machine.models)
    visit(page, url)
    set_parameter(page, "temperature", 0)
    set_parameter(page, "max_tokens", 64)

    # Download, pause, and resume where it was.
    machine.hub.step = threading.Event()
    press(page, name, "Download")
    until(lambda: bool(list(machine.cache.glob("*/blobs/*.partial"))))
    expect(card(page, name)).to_contain_text(re.compile("Downloading: [1-9]"), timeout=LOAD_TIMEOUT_MS)
    with page.expect_response("**/models/pause"):  # or else the rest may have come before the server is asked
        press(page, name, "Pause")
    machine.hub.step.set()
    expect(card(page, name)).to_contain_text("Paused: ", timeout=LOAD_TIMEOUT_MS)
    machine.hub.step = None
    press(page, name, "Resume")
    expect(card(page, name)).to_contain_text("on disk", timeout=LOAD_TIMEOUT_MS)

    with visitor(browser) as context:
        # Somebody else has talked to the demo model before.
        other = context.new_page()
        visit(other, url)
        ask(other, "What is 2 + 3?")
        expect(done(other).locator(".answer")).to_contain_text("5")

        # Switching while a reply is being written: its owner is asked, and stops it.
        machine.step.clear()
        ask(page, "What is 17 + 25?")
        press(page, name, "Use")
        dialog = page.get_by_role("dialog", name="One reply is still being written.")
        dialog.get_by_role("button", name="Stop and continue").click()
        until(lambda: all(each.stop_requested for each in machine.engine.running()))
        machine.step.set()
        expect_badge(page, name, "In use")
        expect(done(page).locator(".note")).to_have_text("Stopped.")
        expect(page.locator("#model-name")).to_have_text(name)

        # The other page follows, and its conversation stays.
        expect(other.locator("#model-name")).to_have_text(name, timeout=LOAD_TIMEOUT_MS)
        expect(reply(other).locator(".answer")).to_contain_text("5")
        set_parameter(other, "max_tokens", 16)
        ask(other, "And now?")
        done(other)
        expect(other.locator(".turn.reply")).to_have_count(2)

    # A reply says which model wrote it.
    ask(page, "And 3 more?")
    done(page)
    details = details_of(page)
    for fact in (MINISTRAL_3_3B.repository, MINISTRAL_3_3B.revision, machine.engine.status().info.precision):
        expect(details).to_contain_text(str(fact))
    details.get_by_role("button", name="Close").click()

    # Unloaded, the next message loads it again.
    press(page, name, "Free memory")
    expect_badge(page, name, "Unloaded")
    expect(box(page)).to_have_attribute("placeholder", re.compile("Your next message loads it again"))
    ask(page, "Once more?")
    expect_badge(page, name, "In use")
    done(page)

    # Back to the demo model, which waits for the reply; then the other one can be removed, and all replies are still there.
    machine.step.clear()
    ask(page, "And again?")
    press(page, "Demo model", "Use")
    dialog.get_by_role("button", name="Wait until finished").click()
    expect(page.locator("#model-banner")).to_contain_text("Waiting for running replies")
    machine.step.set()
    expect_badge(page, "Demo model", "In use")
    expect(done(page).locator(".note", has_text="Stopped.")).to_have_count(0)
    press(page, name, "Remove")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(card(page, name)).to_contain_text("to download", timeout=LOAD_TIMEOUT_MS)
    expect(page.locator(".turn.reply")).to_have_count(4)
    page.locator("#new-chat").click()
    set_parameter(page, "max_tokens", 4_096)
    ask(page, "What is 17 + 25?")
    expect(done(page).locator(".answer")).to_contain_text("42")
