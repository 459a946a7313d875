"""The page on a server: it streams as from its own engine, greys out what the server cannot do, and says when it is away."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from magistral_ui.engines.remote import server_monitor
from magistral_ui.engines.remote.engine import RemoteEngine
from tests.browser.steps import ask, box, done, more, reply, visit
from tests.engines.remote.conftest import connected
from tests.servers.fake_gateway import FakeGateway
from tests.servers.fake_lm_studio import FakeLMStudio


@pytest.fixture
def lm_studio() -> Iterator[FakeLMStudio]:
    fake = FakeLMStudio()
    yield fake
    fake.close()


@pytest.fixture
def engine(lm_studio: FakeLMStudio, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteEngine]:
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.1)
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_WAITING", 0.1)
    engine = connected(lm_studio.base_url)
    yield engine
    engine.close()


def test_what_the_server_cannot_do_is_grey_and_says_why(page: Any, serve: Any, engine: RemoteEngine) -> None:
    visit(page, serve(engine))
    ask(page, "What is 12 + 30?")
    reply = done(page)
    expect(reply.locator(".answer")).to_contain_text("It is 42.")
    expect(reply.locator(".reasoning")).to_contain_text("Thought for")
    more(reply).click()
    again = page.get_by_role("menuitem", name="Answer again from this reasoning", exact=True)
    expect(again).to_have_attribute("aria-disabled", "true")
    expect(again).to_have_attribute("title", re.compile("can’t continue a partial reply"))
    page.keyboard.press("Escape")
    expect(reply.get_by_role("button", name="Regenerate", exact=True)).to_be_enabled()
    for name, missing in (("min-p", True), ("reasoning-budget", True), ("top-k", False), ("temperature", False)):
        control = page.locator(f"#parameter-{name}")
        expect(control.locator(".missing-why")).to_have_count(1 if missing else 0)
        inputs = control.locator("input, textarea")
        for index in range(inputs.count()):
            (expect(inputs.nth(index)).to_be_disabled if missing else expect(inputs.nth(index)).to_be_enabled)()
    expect(page.locator("#model")).to_contain_text("LM Studio")
    expect(page.locator("#model")).to_contain_text("Q4_K_M")


def test_the_page_says_that_its_server_is_away_and_continues_when_it_is_back(
    page: Any, serve: Any, engine: RemoteEngine, lm_studio: FakeLMStudio
) -> None:
    """Nobody sends anything meanwhile; what was typed is still there, and a reply that broke off is kept."""
    lm_studio.pause = 0.02
    visit(page, serve(engine))
    ask(page, "Count for me.")
    expect(reply(page).locator(".answer")).to_contain_text("1 2 3")
    lm_studio.close()  # while it answers
    expect(page.locator("#model-banner")).to_contain_text("isn’t responding")
    expect(done(page).locator(".failure")).to_contain_text("was lost in the middle")
    expect(reply(page).locator(".answer")).to_contain_text("1 2 3")
    expect(reply(page).get_by_role("button", name="Continue", exact=True)).to_be_disabled()  # LM Studio cannot
    port = int(urlsplit(lm_studio.base_url).port or 0)
    again = FakeLMStudio(port)
    try:
        expect(box(page)).to_be_enabled()
        expect(page.locator("#model-banner")).to_be_empty()
        box(page).fill("What is 2 + 2?")
    finally:
        again.close()  # while nothing happens
    expect(page.locator("#model-banner")).to_contain_text("The model server is unavailable")
    expect(box(page)).to_be_disabled()
    again = FakeLMStudio(port)
    try:
        expect(box(page)).to_be_enabled()
        expect(box(page)).to_have_value("What is 2 + 2?")
        box(page).press("Enter")
        expect(reply(page, 1).locator(".answer")).to_contain_text("It is 4.")
    finally:
        again.close()


def test_another_model_in_the_place_of_the_first_is_shown_as_what_it_is(
    page: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was never away; nothing is said of the new model that was only true of Magistral."""
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.1)
    gateway = FakeGateway()
    gateway.listed = {"data": [{"id": "magistral-small-2509", "context_length": 40_960}]}
    engine = connected(gateway.base_url)
    try:
        visit(page, serve(engine))
        expect(page.locator("#model-name")).to_have_text("Magistral Small 1.2")
        expect(page.locator("#instructions-help")).to_contain_text("reasoning prompt")
        modalities = {"input_modalities": ["text"], "output_modalities": ["text"]}
        entry = {"id": "some-model", "context_length": 4096, "architecture": modalities}
        gateway.listed = {"data": [entry]}
        expect(page.locator("#model-name")).to_have_text("some-model")
        expect(page.locator("#model")).to_contain_text("4,096")
        expect(page.locator("#model")).not_to_contain_text("app.py --model")
        expect(page.locator("#parameter-max-tokens input[type=range]")).to_have_attribute(
            "aria-valuetext", re.compile("4,096")
        )
        expect(page.locator("#instructions-help")).not_to_contain_text("reasoning prompt")
        expect(page.locator("#presets")).not_to_contain_text("recommended for this model.")
        expect(page.locator("#settings .warning")).to_be_hidden()
        ask(page, "hi")
        expect(done(page).locator(".answer")).to_contain_text("Fine.")
        assert [each["role"] for each in gateway.requests[-1]["messages"]] == ["user"]
    finally:
        engine.close()
        gateway.close()
