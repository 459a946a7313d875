"""How much the model thinks, chosen at the composer: what is sent, what else follows, and by which hands."""

import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer
from magistral_ui.engines.base import Ready
from tests.browser.axe import violations_in_both_themes
from tests.browser.steps import ask, box, done, more, set_parameter, visit
from tests.scripted_engine import INFO, ScriptedEngine


def engine_with(context: int = 8_192, missing: dict[str, str] | None = None) -> ScriptedEngine:
    return ScriptedEngine([Answer("yes")], status=Ready(replace(INFO, context_length=context, missing=missing or {})))


def opener(page: Any) -> Any:
    return page.locator("#thinking")


def menu(page: Any) -> Any:
    return page.get_by_role("dialog", name="Thinking")


def choose(page: Any, level: str) -> None:
    opener(page).click()
    menu(page).locator("label", has_text=level).click()


def budget_in_panel(page: Any) -> Any:
    return page.locator("#parameter-reasoning-budget input")


@pytest.mark.parametrize(("level", "budget"), [("Off", 0), ("Short", 512), ("Medium", 4_096)])
def test_a_level_is_named_sent_kept_and_taken_back(page: Any, serve: Any, level: str, budget: int) -> None:
    engine = engine_with()
    visit(page, serve(engine))
    expect(opener(page)).to_have_text("Thinking: Full")
    choose(page, level)
    expect(menu(page)).to_be_hidden()
    expect(opener(page)).to_be_focused()
    expect(opener(page)).to_have_text(f"Thinking: {level}")
    expect(budget_in_panel(page)).to_have_value(str(budget))
    ask(page, "one")
    done(page)
    assert engine.requests[-1].params.reasoning_budget == budget
    page.reload()
    expect(opener(page)).to_have_text(f"Thinking: {level}")
    choose(page, "Full")
    expect(opener(page)).to_have_text("Thinking: Full")
    expect(budget_in_panel(page)).to_have_value("")
    ask(page, "two")
    done(page)
    assert engine.requests[-1].params.reasoning_budget is None


def test_without_thinking_the_prompt_is_shorter_and_the_details_say_so(page: Any, serve: Any) -> None:
    engine = engine_with()
    visit(page, serve(engine))
    page.locator("#system-prompt summary").click()
    expect(page.locator("#system-prompt .prompt-text")).to_contain_text("[THINK]")
    expect(page.locator(".meter-count")).not_to_have_text("0 of 8,192 tokens")
    choose(page, "Off")
    expect(page.locator("#system-prompt .prompt-text")).not_to_contain_text("[THINK]")
    expect(page.locator(".meter-count")).to_have_text("0 of 8,192 tokens")
    ask(page, "one")
    more(done(page)).click()
    page.get_by_role("menuitem", name="Details").click()
    details = page.get_by_role("dialog", name="Details")
    expect(details.locator("dt", has_text="Thinking").locator("xpath=following-sibling::dd[1]")).to_have_text("Off")
    details.get_by_role("button", name="Reproduce").click()
    expect(done(page).locator(".branch")).to_have_text(re.compile("2 / 2"))  # the one before was done as well
    assert [each.params.reasoning_budget for each in engine.requests] == [0, 0]
    assert engine.requests[0].prompt.digest == engine.requests[1].prompt.digest


def test_keys_choose_and_escape_gives_the_focus_back(page: Any, serve: Any) -> None:
    visit(page, serve(engine_with()))
    opener(page).focus()
    page.keyboard.press("Enter")
    expect(opener(page)).to_have_attribute("aria-expanded", "true")
    expect(menu(page).get_by_role("radio", name="Full")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(menu(page).get_by_role("radio", name="Medium")).to_be_checked()
    expect(opener(page)).to_have_text("Thinking: Medium")
    page.keyboard.press("ArrowUp")
    expect(opener(page)).to_have_text("Thinking: Short")
    page.keyboard.press("Escape")
    expect(menu(page)).to_be_hidden()
    expect(opener(page)).to_be_focused()
    expect(opener(page)).to_have_attribute("aria-expanded", "false")


def test_a_number_of_tokens_of_one_s_own_is_brought_within_its_bounds(page: Any, serve: Any) -> None:
    visit(page, serve(engine_with(context=5_000)))
    choose(page, "Custom")
    field = menu(page).get_by_label("Tokens for thinking")
    expect(field).to_have_value("2048")
    expect(field).to_be_editable()
    for typed, shown, named in (("100", "100", "100"), ("9999", "5000", "5,000"), ("0", "1", "1")):
        field.fill(typed)
        field.press("Tab")
        expect(field).to_have_value(shown)
        expect(opener(page)).to_have_text(f"Thinking: {named} token{'s' if shown != '1' else ''}")
        field.focus()
    field.fill("700")
    field.press("Enter")
    expect(menu(page)).to_be_hidden()
    expect(opener(page)).to_have_text("Thinking: 700 tokens")
    opener(page).click()
    expect(menu(page).get_by_role("radio", name="Custom")).to_be_checked()


def test_the_panel_and_its_presets_move_it(page: Any, serve: Any) -> None:
    visit(page, serve(engine_with()))
    page.locator("#presets label", has_text="Quick").click()
    expect(opener(page)).to_have_text("Thinking: Short")
    set_parameter(page, "reasoning_budget", 0)
    expect(opener(page)).to_have_text("Thinking: Off")
    set_parameter(page, "reasoning_budget", 600)
    expect(opener(page)).to_have_text("Thinking: 600 tokens")
    page.locator("#presets label", has_text="Recommended").click()
    expect(opener(page)).to_have_text("Thinking: Full")


def test_what_a_server_cannot_do_is_grey_with_the_reason(page: Any, serve: Any) -> None:
    missing = {"reasoning_budget": "missing_resume", "without_reasoning": "missing_without_reasoning"}
    visit(page, serve(engine_with(missing=missing)))
    opener(page).click()
    for level in ("Off", "Short", "Medium", "Custom"):
        expect(menu(page).get_by_role("radio", name=level)).to_be_disabled()
    expect(menu(page).get_by_label("Tokens for thinking")).to_be_disabled()
    off = menu(page).get_by_role("radio", name="Off")
    expect(off).to_have_accessible_description("This model server can’t turn thinking off.")
    expect(menu(page).get_by_role("radio", name="Full")).to_be_enabled()


@pytest.mark.parametrize(("width", "language"), [(1280, "en"), (360, "ru"), (360, "ar")])
def test_axe_core_finds_nothing_in_it(page: Any, serve: Any, width: int, language: str) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.set_extra_http_headers({"Accept-Language": language})
    page.emulate_media(reduced_motion="reduce")
    visit(page, serve(engine_with(missing={"without_reasoning": "missing_without_reasoning"})))
    expect(box(page)).to_be_enabled()
    opener(page).click()
    expect(page.locator(".thinking-menu")).to_be_visible()
    assert violations_in_both_themes(page) == []
    shown = page.locator(".thinking-menu").bounding_box()
    assert shown is not None
    assert shown["x"] >= 0
    assert shown["x"] + shown["width"] <= width
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
