"""GGUF files on the page in a real browser: the list, the offer, the panel; the server's answers are scripted."""

import copy
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer
from tests.browser import gguf_models
from tests.browser.axe import violations_in_both_themes
from tests.browser.steps import ask, card, done, more, reply, visit
from tests.scripted_engine import ScriptedEngine


@pytest.fixture
def asked(page: Any) -> list[tuple[str, dict[str, Any]]]:
    """What the page asks about models."""
    found: list[tuple[str, dict[str, Any]]] = []

    def answer(route: Any) -> None:
        found.append((route.request.url.rsplit("/", 1)[1], route.request.post_data_json["data"]))
        route.fulfill(json={"models": copy.deepcopy(gguf_models.models())})

    page.route("**/magistral/act/models/*", answer)
    return found


def engine() -> ScriptedEngine:
    return ScriptedEngine([Answer("yes")], card=gguf_models.TEXT_ONLY, status=gguf_models.READY)


def test_gguf_files_are_offered_where_they_run_best(
    page: Any, serve: Any, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    visit(page, serve(engine()))
    offer = page.locator(".model-offer")
    expect(offer).to_contain_text("4-bit (Q4_K_M) · 6.7 GB of memory · about 11 tokens/s")
    expect(offer).to_contain_text("about 5.5 GB to download")
    best = card(page, "Ministral 3 8B")
    best.get_by_text("Options and details").click()
    expect(best.get_by_role("group", name="GGUF files, run by llama.cpp")).to_contain_text(gguf_models.FILES)
    shown = best.locator(".way:visible")
    expect(shown).to_have_count(5)
    best.get_by_text("3 more").click()
    expect(shown).to_have_count(8)
    best.get_by_text("2-bit (Q2_K)").click()
    expect(best.get_by_label("2-bit (Q2_K)")).to_be_checked()
    expect(best.get_by_text("8-bit (Q8_0)")).to_be_visible()  # what was opened stays open
    assert violations_in_both_themes(page) == []
    with page.expect_response("**/models/download"):
        best.get_by_role("button", name="Download").click()
    with page.expect_response("**/models/download"):
        offer.get_by_role("button", name="Download and use").click()
    downloads = [data["key"] for name, data in asked if name == "download"]
    assert downloads == [f"{gguf_models.FILES}:Q2_K", f"{gguf_models.FILES}:Q4_K_M"]
    held = card(page, "Ministral 3 3B")
    expect(held).to_contain_text("2.2 GB on disk")
    page.set_viewport_size({"width": 320, "height": 700})
    page.locator("#settings-toggle").click()
    assert page.evaluate("document.getElementById('settings').scrollWidth <= 320")


def test_the_panel_tells_what_runs_a_gguf_file_and_its_command_can_be_copied(
    page: Any, context: Any, serve: Any, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    visit(page, serve(engine()))
    panel = page.locator("#model")
    for fact in ("4-bit (Q4_K_M)", "llama.cpp", "32 of 41", "8-bit (q8_0)"):
        expect(panel.locator("dl")).to_contain_text(fact)
    expect(panel.locator(".machine-notice code")).to_have_text(gguf_models.COMMAND)
    expect(panel).to_contain_text("its projector is missing")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel.get_by_role("button", name="Copy").click()
    page.wait_for_function("async (text) => await navigator.clipboard.readText() === text", arg=gguf_models.COMMAND)
    ask(page, "Hello?")
    done(page)
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Details").click()
    details = page.get_by_role("dialog", name="Details")
    expect(details).to_contain_text("4-bit (Q4_K_M)")
    expect(details).to_contain_text("llama.cpp")
