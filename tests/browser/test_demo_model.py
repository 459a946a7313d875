"""The main job, end to end: a real browser, the real engine, the demo model."""

import re
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import expect

from tests.browser.steps import ask, done, more, reply, set_parameter, thought, visit


def test_a_sum_is_thought_about_and_answered(page: Any, serve: Any, demo_engine: Any) -> None:
    visit(page, serve(demo_engine))
    set_parameter(page, "temperature", 0)
    ask(page, "What is 487 + 265?")
    expect(page.locator(".reasoning")).to_be_visible()
    answer = done(page).locator(".answer")
    expect(answer).to_contain_text("752")
    expect(page.locator(".reasoning")).not_to_have_attribute("open", "")
    expect(page.locator(".reasoning summary")).to_have_text(re.compile(r"Thought for \d+\.\d s\s*\d+ tokens"))
    page.locator(".reasoning summary").click()
    expect(page.locator(".reasoning-text")).to_contain_text(re.compile(r"\d"))


def test_the_panel_tells_how_memory_is_shared(page: Any, serve: Any, demo_engine: Any) -> None:
    visit(page, serve(demo_engine))
    parts = page.locator("#model .shares-list li")
    expect(parts).to_have_count(4)
    expect(parts.first).to_have_text(re.compile(r"Weights\s*[\d.]+ MB"))
    wide = page.locator("#model .shares span").evaluate_all(
        "(all) => all.map((each) => each.getBoundingClientRect().width)"
    )
    plan = demo_engine.status().info.plan
    sizes = [plan.weights, plan.kv_bytes, plan.working, plan.margin]
    assert max(wide) == wide[sizes.index(max(sizes))]
    assert all(width >= 2 for width in wide)


def test_an_image_is_looked_at(page: Any, serve: Any, demo_engine: Any, tmp_path: Path) -> None:
    image = Image.new("RGB", (200, 160), "white")
    ImageDraw.Draw(image).ellipse((40, 20, 160, 140), fill=(220, 30, 30))
    image.save(tmp_path / "circle.png")
    visit(page, serve(demo_engine))
    set_parameter(page, "temperature", 0)
    page.locator("#box input[type=file]").set_input_files(tmp_path / "circle.png")
    expect(page.locator("#box img").first).to_be_visible()
    ask(page, "What is in this picture?")
    expect(done(page).locator(".answer")).to_contain_text("red")
    expect(page.locator(".turn.user img")).to_have_count(1)


def test_stop_stops_it_long_before_its_limit(page: Any, serve: Any, demo_engine: Any) -> None:
    visit(page, serve(demo_engine))
    # A penalty below 1 rewards repetition: the count never comes to its end, however fast the machine is.
    set_parameter(page, "repetition_penalty", 0.5)
    set_parameter(page, "temperature", 0)
    ask(page, "Count from 1 to 200")
    expect(reply(page).locator(".answer")).to_contain_text(re.compile(r"\d"))
    page.locator("#box .stop-button").click()
    expect(done(page)).to_contain_text("Stopped.")
    written = int(re.sub(r"\D", "", reply(page).locator(".facts").text_content().split(" tokens")[0]))
    assert 0 < written < 4000


def test_the_same_seed_gives_the_same_reply(page: Any, serve: Any, demo_engine: Any) -> None:
    visit(page, serve(demo_engine))
    set_parameter(page, "temperature", 2)
    set_parameter(page, "top_p", 1)
    set_parameter(page, "max_tokens", 60)
    texts = []
    for seed in (11, 11, 12):
        set_parameter(page, "seed", seed)
        page.get_by_role("button", name="New chat").click()
        expect(page.locator(".turn")).to_have_count(0)
        ask(page, "Tell me something")
        turn = done(page)
        expect(turn.locator(".answer > .open")).to_have_count(0)
        texts.append(thought(turn) + turn.locator(".answer").text_content())
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_max_tokens_ends_the_reply_and_says_so(page: Any, serve: Any, demo_engine: Any) -> None:
    visit(page, serve(demo_engine))
    set_parameter(page, "max_tokens", 5)
    ask(page, "What is 487 + 265?")
    expect(done(page)).to_contain_text("Stopped at the limit of 5 tokens")


def test_edited_reasoning_leads_to_another_answer_which_is_written_again_word_for_word(
    page: Any, serve: Any, demo_engine: Any
) -> None:
    visit(page, serve(demo_engine))
    set_parameter(page, "temperature", 0)
    ask(page, "What is 487 + 265?")
    expect(done(page).locator(".answer")).to_contain_text("752")
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Edit reasoning…").click()
    field = page.get_by_role("textbox", name="Edit the reasoning")
    field.fill(field.input_value().replace("752", "753"))
    page.get_by_role("button", name="Answer from this").click()
    expect(done(page).locator(".answer")).to_contain_text("753")
    expect(reply(page).get_by_text("edited by you")).to_be_visible()
    set_parameter(page, "temperature", 2)
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Details").click()
    page.get_by_role("button", name="Reproduce this reply").click()
    expect(reply(page).locator(".branch")).to_contain_text("3 / 3")
    expect(done(page)).to_contain_text("Reproduced: identical, word for word.")
    expect(reply(page).locator(".answer")).to_contain_text("753")
