"""The settings and the context meter in a real browser: what is set is sent, marked, kept, and what does not fit is told."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.engines.base import Ready
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_0, MAGISTRAL_1_2
from tests.browser.axe import violations_in_both_themes
from tests.browser.steps import ask, box, done, set_parameter, visit
from tests.scripted_engine import INFO, ScriptedEngine

SYSTEM = sum(len(part.text.split()) for part in DEMO.system())


def engine_with(context: int = 8_192, **options: Any) -> ScriptedEngine:
    script = [Reasoning("a b c d"), Answer("yes no")]
    return ScriptedEngine(script, status=Ready(replace(INFO, context_length=context)), **options)


def parameter(page: Any, name: str) -> Any:
    return page.locator(f"#parameter-{name}")


def meter(page: Any) -> Any:
    return page.locator(".meter summary")


def test_a_value_that_is_not_the_card_s_is_marked_sent_and_taken_back(page: Any, serve: Any) -> None:
    engine = engine_with()
    visit(page, serve(engine))
    temperature = parameter(page, "temperature")
    expect(temperature.get_by_role("button")).to_be_hidden()
    set_parameter(page, "temperature", 1.3)
    set_parameter(page, "top_k", 40)
    expect(temperature).to_have_class(re.compile("changed"))
    expect(page.locator("#more-parameters summary")).to_have_text("More parameters (1 changed)")
    ask(page, "one")
    done(page)
    assert engine.requests[0].params == replace(
        DEMO.sampling, temperature=1.3, top_k=40, seed=engine.requests[0].params.seed
    )
    temperature.get_by_role("button", name="Reset to default: 0.7").click()
    expect(temperature).not_to_have_class(re.compile("changed"))
    expect(temperature.locator("input[type=number]")).to_have_value("0.7")
    expect(temperature.locator("input[type=number]")).to_be_focused()


def test_numbers_out_of_bounds_are_brought_within_and_empty_ones_are_the_card_s(page: Any, serve: Any) -> None:
    visit(page, serve(engine_with(context=3_000)))
    for name, typed, shown in (
        ("temperature", "9", "2"),
        ("temperature", "", "0.7"),
        ("max_tokens", "999999", "3000"),
        ("max_tokens", "7.6", "8"),
        ("reasoning_budget", "-1", "0"),
        ("reasoning_budget", "", ""),
        ("seed", "-3", "0"),
    ):
        set_parameter(page, name, typed)
        expect(parameter(page, name.replace("_", "-")).locator("input[type=number]")).to_have_value(shown)


def test_what_is_being_typed_is_left_alone_by_all_that_arrives_meanwhile(page: Any, serve: Any) -> None:
    visit(page, serve(engine_with()))
    box(page).fill("one two three")
    field = parameter(page, "temperature").locator("input[type=number]")
    field.fill("1")
    field.press(".")
    expect(meter(page)).to_have_text(f"{SYSTEM + 3} of 8,192 tokens")
    page.evaluate("document.getElementById('keep-reasoning').click()")
    field.press("End")
    field.press_sequentially("4")
    field.press("Tab")
    expect(field).to_have_value("1.4")


def test_sliders_move_by_keys_and_the_one_of_max_tokens_by_factors(page: Any, serve: Any) -> None:
    visit(page, serve(engine_with()))
    slider = parameter(page, "temperature").get_by_role("slider")
    slider.press("ArrowRight")
    expect(parameter(page, "temperature").locator("input[type=number]")).to_have_value("0.75")
    expect(slider).to_have_attribute("aria-valuetext", "0.75")
    tokens = parameter(page, "max-tokens")
    tokens.get_by_role("slider").press("End")
    expect(tokens.locator("input[type=number]")).to_have_value("8192")
    tokens.get_by_role("slider").press("Home")
    expect(tokens.locator("input[type=number]")).to_have_value("1")


def test_presets_set_all_but_the_seed_and_the_card_s_own_is_one_click_away(page: Any, serve: Any) -> None:
    engine = engine_with()
    visit(page, serve(engine))
    presets = page.get_by_role("radiogroup", name="Presets")
    expect(presets.get_by_role("radio", name="Recommended")).to_be_checked()
    set_parameter(page, "seed", 5)
    set_parameter(page, "top_k", 9)
    expect(presets.locator(":checked")).to_have_count(0)
    expect(page.locator("#presets")).to_contain_text("Custom values.")
    presets.get_by_text("Quick").click()
    expect(presets.get_by_role("radio", name="Quick")).to_be_checked()
    expect(page.locator("#presets")).to_contain_text("Thinks for at most 512 tokens")
    ask(page, "one")
    done(page)
    assert engine.requests[0].params == replace(DEMO.sampling, reasoning_budget=512, seed=5)
    presets.get_by_role("radio", name="Quick").press("Home")
    presets.get_by_role("radio", name="Quick").press("ArrowLeft")
    expect(presets.get_by_role("radio", name="Creative")).to_be_checked()
    presets.get_by_text("Recommended").click()
    expect(parameter(page, "reasoning-budget")).not_to_have_class(re.compile("changed"))


def test_a_visitor_s_own_preset_is_saved_kept_and_deleted(page: Any, serve: Any, browser: Any) -> None:
    url = serve(engine_with())
    visit(page, url)
    set_parameter(page, "temperature", 0.15)
    page.locator("#preset-save").click()
    name = page.get_by_label("Preset name")
    expect(name).to_be_focused()
    name.press("Escape")
    expect(page.locator("#preset-save")).to_be_focused()
    page.locator("#preset-save").press("Enter")
    name.fill("<b>Bold</b>")
    name.press("Enter")
    mine = page.get_by_role("radio", name="<b>Bold</b>")
    expect(mine).to_be_checked()
    expect(mine).to_be_focused()
    page.get_by_text("Precise").click()
    page.reload()
    page.get_by_text("<b>Bold</b>").click()
    expect(parameter(page, "temperature").locator("input[type=number]")).to_have_value("0.15")
    stranger = browser.new_context()
    tab = stranger.new_page()
    visit(tab, url)
    expect(tab.get_by_role("radio", name="Precise")).to_have_count(1)
    expect(tab.get_by_role("radio", name="<b>Bold</b>")).to_have_count(0)
    stranger.close()
    page.locator("#preset-delete").click()
    expect(mine).to_have_count(0)
    expect(page.locator("#preset-save")).to_be_visible()


def test_everything_that_was_set_survives_a_reload_and_travels_with_each_message(page: Any, serve: Any) -> None:
    engine = engine_with()
    visit(page, serve(engine))
    set_parameter(page, "min_p", 0.1)
    page.locator("#instructions-text").fill("Be brief.")
    page.locator("#keep-reasoning").uncheck()
    page.locator("#picture-side").select_option("512")
    page.reload()
    expect(box(page)).to_be_enabled()
    expect(page.locator("#instructions-text")).to_have_value("Be brief.")
    expect(page.locator("#keep-reasoning")).not_to_be_checked()
    expect(page.locator("#picture-side")).to_have_value("512")
    ask(page, "one")
    done(page)
    ask(page, "two")
    done(page)
    prompt, params = engine.requests[1].prompt, engine.requests[1].params
    assert params.min_p == 0.1
    assert prompt.system[-1].text.endswith("Be brief.")
    assert getattr(prompt.turns[1], "reasoning", "") is None


@pytest.mark.parametrize(
    "kept", ["junk", "[]", "3", '{"params": {"temperature": "hot", "max_tokens": 1e9}, "instructions": 7}']
)
def test_damaged_settings_do_no_harm(page: Any, serve: Any, kept: str) -> None:
    engine = engine_with()
    page.add_init_script(f"localStorage.setItem('magistral-ui-settings', {json.dumps(kept)})")
    visit(page, serve(engine))
    ask(page, "one")
    done(page)
    assert engine.requests[0].params.temperature == 0.7
    assert engine.requests[0].params.max_tokens <= 8_192


@pytest.mark.parametrize(
    ("card", "begin", "end"), [(MAGISTRAL_1_2, "[THINK]", "[/THINK]"), (MAGISTRAL_1_0, "<think>", "</think>")]
)
def test_the_whole_system_prompt_is_seen_edited_and_taken_back(
    page: Any, serve: Any, card: Any, begin: str, end: str
) -> None:
    engine = engine_with(card=card)
    visit(page, serve(engine))
    page.locator("#instructions-text").fill("Be brief.")
    prompt = page.locator("#system-prompt")
    prompt.locator("summary").click()
    shown = prompt.get_by_role("group", name="Full system prompt")
    expect(shown).to_contain_text(begin)
    expect(shown).to_contain_text("Be brief.")
    prompt.get_by_role("button", name="Edit").click()
    field = prompt.get_by_label("System prompt", exact=True)
    expect(field).to_have_value(card.system_prompt())
    warning = page.locator("#prompt .warning")
    expect(warning).to_be_hidden()
    field.fill("You are nice.")
    expect(warning).to_contain_text(f"lacks the reasoning marks {begin} and {end}")
    field.fill(f"Think {begin}so{end} then speak.")
    expect(warning).to_be_hidden()
    prompt.get_by_role("button", name="Done").click()
    expect(prompt.locator(".badge")).to_be_visible()
    ask(page, "one")
    done(page)
    sent = [(part.text, part.reasoning) for part in engine.requests[0].prompt.system]
    if card is MAGISTRAL_1_2:
        assert sent == [("Think ", False), ("so", True), (" then speak.\n\nBe brief.", False)]
    else:
        assert sent == [("Think <think>so</think> then speak.\n\nBe brief.", False)]
    prompt.get_by_role("button", name="Reset to default").click()
    expect(prompt.locator(".badge")).to_be_hidden()
    expect(shown).to_contain_text(card.system_prompt()[:40])


def test_the_meter_counts_while_one_writes_and_says_what_for(page: Any, serve: Any) -> None:
    visit(page, serve(engine_with()))
    expect(meter(page)).to_have_text(f"{SYSTEM} of 8,192 tokens")
    box(page).fill("one two three")
    expect(meter(page)).to_have_text(f"{SYSTEM + 3} of 8,192 tokens")
    box(page).press("Enter")
    done(page)
    box(page).fill("four")
    expect(meter(page)).to_have_text(f"{SYSTEM + 3 + 4 + 2 + 1} of 8,192 tokens")
    expect(page.locator("#keep-reasoning-tokens")).to_have_text("It takes 4 tokens in this chat.")
    meter(page).press("Enter")
    expect(page.locator(".breakdown")).to_contain_text(
        re.compile(r"Earlier messages\s*5\s*Earlier reasoning\s*4\s*This message\s*1")
    )
    page.locator("#keep-reasoning").uncheck()
    expect(meter(page)).to_have_text(f"{SYSTEM + 3 + 2 + 1} of 8,192 tokens")
    expect(page.locator("#keep-reasoning-tokens")).to_have_text("4 tokens are left out in this chat.")
    meter(page).press("Enter")
    meter(page).press("Escape")
    expect(page.locator(".breakdown")).to_be_hidden()
    expect(meter(page)).to_be_focused()


def test_an_image_s_cost_is_known_before_it_is_sent(page: Any, serve: Any, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    visit(page, serve(engine_with()))
    page.locator("#box input[type=file]").set_input_files(tmp_path / "red.png")
    expect(meter(page)).to_have_text(f"{SYSTEM + 100} of 8,192 tokens")
    meter(page).click()
    expect(page.locator(".breakdown")).to_contain_text("of which image: 100")
    page.locator("#box .delete-button").first.click()
    expect(meter(page)).to_have_text(f"{SYSTEM} of 8,192 tokens")


def test_what_does_not_fit_is_told_before_sending_and_mended_by_a_click(page: Any, serve: Any, tmp_path: Path) -> None:
    engine = engine_with(context=SYSTEM + 9 + 95)
    Image.new("RGB", (1400, 900), "red").save(tmp_path / "red.png")
    visit(page, serve(engine))
    ask(page, "one two three")
    done(page)
    box(page).fill("word " * 97)
    fit = page.locator(".fit")
    expect(fit).to_contain_text(f"Too long: {SYSTEM + 9 + 97} of")
    expect(page.locator("#meter [role=status]")).to_contain_text("Too long")
    fit.get_by_role("button", name="Leave out earlier reasoning (4 tokens)").click()
    expect(fit).to_contain_text("Only 2 tokens are left for the reply.")
    expect(page.locator("#keep-reasoning")).not_to_be_checked()
    expect(box(page)).to_be_focused()
    page.locator("#box input[type=file]").set_input_files(tmp_path / "red.png")
    fit.get_by_role("button", name="Send smaller images").click()
    expect(page.locator("#picture-side")).to_have_value("1024")
    fit.get_by_role("button", name="New chat with this message").click()
    expect(page.locator(".turn")).to_have_count(0)
    assert box(page).input_value() == "word " * 97
    box(page).fill("one")
    page.locator("#box .delete-button").first.click()
    expect(fit).to_be_hidden()


def test_a_file_that_is_no_image_is_told_when_it_is_attached(page: Any, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "junk.png").write_bytes(b"no picture")
    visit(page, serve(engine_with()))
    page.locator("#box input[type=file]").set_input_files(tmp_path / "junk.png")
    expect(page.locator(".refusals")).to_contain_text("This file wasn’t added:")
    expect(page.locator(".refusals li")).to_have_text("junk.png — not a readable image")
    expect(page.locator("#box .thumbnail-wrapper")).to_have_count(0)


def test_a_server_s_gaps_are_greyed_out(page: Any, serve: Any) -> None:
    info = replace(INFO, missing={"min_p": "missing_parameter", "keep_reasoning": "missing_history"})
    visit(page, serve(ScriptedEngine([], status=Ready(info))))
    page.locator("#more-parameters summary").click()
    expect(parameter(page, "min-p").locator("input[type=number]")).to_be_disabled()
    expect(parameter(page, "min-p")).to_contain_text("has no such setting")
    expect(page.locator("#keep-reasoning")).to_be_disabled()


@pytest.mark.parametrize("width", [1280, 360])
def test_axe_core_finds_nothing_in_the_panel_and_the_meter(page: Any, serve: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, serve(engine_with(context=SYSTEM + 30)))
    ask(page, "one two three")
    done(page)
    box(page).fill("word " * 40)
    expect(page.locator(".fit")).to_be_visible()
    meter(page).click()
    assert violations_in_both_themes(page) == []
    if width < 1100:
        page.locator("#settings-toggle").click()
    set_parameter(page, "temperature", 1.3)
    page.locator("#preset-save").click()
    page.locator("#system-prompt summary").click()
    page.locator("#system-prompt").get_by_role("button", name="Edit").click()
    page.get_by_label("System prompt", exact=True).fill("You are nice.")
    expect(page.locator("#prompt .warning")).to_be_visible()
    assert violations_in_both_themes(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.locator("#settings").evaluate("(node) => node.scrollWidth <= node.clientWidth")
