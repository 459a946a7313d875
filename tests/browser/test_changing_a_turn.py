"""What can be done with a turn, in a real browser over a scripted engine, by pointer and by keyboard alone."""

import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Finished, Reasoning
from magistral_ui.engines.base import GenerationRequest, Ready
from tests.browser.steps import ask, attempt, box, done, more, reply, visit
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine


def words(request: GenerationRequest) -> Script:
    """What it was asked with comes back, so that a difference shows."""
    resume, seed = request.prompt.resume, request.params.seed
    if resume is None:
        asked = getattr(request.prompt.turns[-1], "text", "")
        if asked == "slow":
            return [Reasoning("Slowly. "), Pause(60), Answer("At last.")]
        return [Reasoning("Let me see.", 3), Answer(f"You said {asked} with {seed}.")]
    begun = f"{'closed' if resume.closed else 'open'}: {resume.reasoning}"
    return [Answer(begun)] if resume.closed else [Reasoning(" And more."), Answer(begun)]


def item(page: Any, name: str) -> Any:
    return page.get_by_role("menuitem", name=name, exact=True)


def test_the_menu_opens_walks_and_closes_by_keyboard_and_gives_the_focus_back(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    ask(page, "hello")
    said = done(page)
    expect(said.locator(".answer")).to_be_visible()  # drawn once the renderer is there
    button = more(said)
    before = page.locator(".turns").bounding_box()
    button.focus()
    page.keyboard.press("Enter")
    menu = page.get_by_role("menu", name="More")
    expect(menu).to_be_visible()
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(item(page, "Copy reasoning")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(item(page, "Delete")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("d")
    expect(item(page, "Details")).to_be_focused()
    assert page.locator(".turns").bounding_box() == before
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowDown")
    expect(item(page, "Copy reasoning")).to_be_focused()
    page.keyboard.press("Tab")
    expect(menu).to_be_hidden()
    button.click()
    expect(menu).to_be_visible()
    button.click()
    expect(menu).to_be_hidden()
    button.click()
    page.mouse.click(5, 400)
    expect(menu).to_be_hidden()
    button.click()
    expect(menu).to_be_visible()
    button.hover()
    page.mouse.down()
    page.mouse.move(5, 400)  # a press that ends elsewhere clicks nothing
    page.mouse.up()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    button.press("Enter")
    expect(menu).to_be_visible()


def test_answer_reasoning_and_both_are_copied_as_they_were_written(page: Any, context: Any, serve: Any) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, serve([Reasoning("One.\n\nTwo *stars*."), Answer("It is **so**.")]))
    ask(page, "hello")

    def copied(text: str) -> None:
        page.wait_for_function("(text) => navigator.clipboard.readText().then((copied) => copied === text)", arg=text)

    copy = done(page).locator(".foot").get_by_role("button", name="Copy", exact=True)
    width = copy.bounding_box()["width"]
    copy.press("Enter")
    expect(reply(page).locator(".foot").get_by_role("button", name="Copied", exact=True)).to_be_visible()
    assert copy.count() == 0
    confirmed = reply(page).locator(".foot .confirming")
    assert confirmed.bounding_box()["width"] == width
    copied("It is **so**.")
    more(reply(page)).press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_have_text("Copied")
    copied("One.\n\nTwo *stars*.")
    more(reply(page)).click()
    item(page, "Copy reasoning and answer").click()
    expect(page.locator(".toast")).to_have_text("Copied")
    expect(more(reply(page))).to_be_focused()
    copied("> **Reasoning**\n>\n> One.\n>\n> Two *stars*.\n\nIt is **so**.\n")
    more(page.locator(".turn.user")).click()
    item(page, "Copy").click()
    copied("hello")


@pytest.mark.parametrize(("name", "how"), [("Keep thinking", "open"), ("Answer from this", "closed")])
def test_the_reasoning_is_edited_and_gone_on_from_in_a_sibling(page: Any, serve: Any, name: str, how: str) -> None:
    visit(page, serve(words))
    ask(page, "hello")
    more(done(page)).click()
    item(page, "Edit reasoning…").click()
    field = page.get_by_role("textbox", name="Edit the reasoning")
    expect(field).to_be_focused()
    expect(field).to_have_value("Let me see.")
    field.fill(" ")
    expect(page.get_by_role("button", name=name)).to_be_disabled()
    field.fill("Not so fast.")
    field.press("Escape")
    expect(page.locator(".reasoning-text")).to_have_text("Let me see.")
    expect(more(reply(page))).to_be_focused()
    more(reply(page)).press("Enter")
    item(page, "Edit reasoning…").press("Enter")
    expect(field).to_have_value("Not so fast.")
    page.get_by_role("button", name=name).press("Enter")
    expect(reply(page).locator(".answer")).to_have_text(f"{how}: Not so fast.")
    expect(done(page).locator(".branch")).to_have_text(re.compile("2 / 2"))
    edited = reply(page).get_by_text("edited by you")
    expect(edited).to_be_visible()
    reply(page).locator(".reasoning summary").click()
    thought = "Not so fast. And more." if how == "open" else "Not so fast."
    expect(reply(page).locator(".reasoning-text")).to_have_text(thought)
    reply(page).get_by_role("button", name="Previous version").click()
    expect(edited).to_be_hidden()


def test_control_and_enter_think_on_also_where_a_reply_was_cut_while_thinking(page: Any, serve: Any) -> None:
    def script(request: GenerationRequest) -> Script:
        if request.prompt.resume is None:
            return [Reasoning("Hm, "), Finished("length")]
        return [Reasoning("well"), Answer("So.")]

    visit(page, serve(script))
    ask(page, "hello")
    more(done(page)).click()
    item(page, "Edit reasoning…").click()
    field = page.get_by_role("textbox", name="Edit the reasoning")
    field.fill("Ah, ")
    field.press("Control+Enter")
    expect(done(page).locator(".answer")).to_have_text("So.")
    expect(reply(page).locator(".branch")).to_have_text(re.compile("2 / 2"))


def test_details_tell_what_a_reply_was_written_with_and_it_is_written_again_so(page: Any, serve: Any) -> None:
    engine = ScriptedEngine(words)
    visit(page, serve(engine))
    ask(page, "hello")
    expect(done(page).locator(".answer")).to_contain_text("You said")
    said = reply(page).locator(".answer").inner_text()
    seed = said.rstrip(".").split()[-1]
    page.locator("#parameter-temperature input[type=number]").fill("0.1")
    page.locator("#parameter-temperature input[type=number]").press("Tab")
    more(reply(page)).press("Enter")
    item(page, "Details").press("Enter")
    details = page.get_by_role("dialog", name="Details")
    expect(details).to_contain_text(f"Seed{seed}")
    expect(details).to_contain_text("Temperature0.7")
    expect(details).to_contain_text("Precision32-bit (float32)")
    page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    expect(more(reply(page))).to_be_focused()
    more(reply(page)).click()
    item(page, "Details").click()
    details.get_by_role("button", name="Reproduce this reply").click()
    expect(reply(page).locator(".note")).to_have_text("Reproduced: identical, word for word.")
    expect(done(page).locator(".answer")).to_have_text(said)
    expect(reply(page).locator(".branch")).to_have_text(re.compile("2 / 2"))
    assert engine.requests[0] == engine.requests[1]
    engine.set_status(Ready(replace(INFO, precision="nf4")))
    ask(page, "more")
    done(page)
    more(page.locator(".turn.reply").first).click()
    item(page, "Details").click()
    expect(details).to_contain_text("A different model, precision, revision or device is running now")


def test_what_is_deleted_comes_back_with_undo_and_its_siblings_take_its_place(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    ask(page, "one")
    done(page)
    ask(page, "two")
    done(page)
    first = page.locator(".turn.user").first
    more(first).focus()
    page.keyboard.press("Enter")
    item(page, "Delete this and everything after it").press("Enter")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator(".toast")).to_contain_text("4 messages deleted.")
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    undo.press("Enter")
    expect(page.locator(".turn")).to_have_count(4)
    expect(box(page)).to_be_focused()
    reply(page).get_by_role("button", name="Regenerate").click()
    expect(done(page).locator(".branch")).to_have_text(re.compile("2 / 2"))
    second = reply(page).locator(".answer").inner_text()
    more(reply(page)).click()
    item(page, "Delete").click()
    expect(reply(page).locator(".answer")).not_to_have_text(second)
    expect(reply(page).locator(".branch")).to_be_hidden()
    page.get_by_role("button", name="Undo").click()
    expect(reply(page).locator(".answer")).to_have_text(second)


def test_undo_is_offered_for_some_seconds_and_for_longer_while_the_focus_is_on_it(page: Any, serve: Any) -> None:
    page.clock.install()
    page.goto(serve(words))
    expect(box(page)).to_be_enabled()
    ask(page, "one")
    more(done(page)).click()
    item(page, "Delete").click()
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    page.clock.fast_forward(60_000)
    expect(undo).to_be_visible()
    box(page).focus()
    page.clock.fast_forward(10_000)
    expect(undo).to_be_visible()
    page.clock.fast_forward(3_000)
    expect(undo).to_be_hidden()


def test_a_message_whose_reply_was_deleted_is_answered_on_demand(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    ask(page, "one")
    answer = page.locator(".turn.user").get_by_role("button", name="Answer", exact=True)
    expect(answer).to_be_hidden()
    more(done(page)).click()
    item(page, "Delete").click()
    expect(page.locator(".turn.reply")).to_have_count(0)
    answer.click()
    expect(done(page).locator(".answer")).to_contain_text("You said one")
    expect(answer).to_be_hidden()


def test_reasoning_is_left_out_of_the_context_and_says_so(page: Any, serve: Any) -> None:
    engine = ScriptedEngine(words)
    visit(page, serve(engine))
    ask(page, "one")
    badge = done(page).locator(".left-out")
    expect(badge).to_be_hidden()
    more(reply(page)).press("Enter")
    check = page.get_by_role("menuitemcheckbox", name="Reasoning in context")
    expect(check).to_have_attribute("aria-checked", "true")
    expect(check).to_contain_text("3 tokens")
    check.press("Enter")
    expect(badge).to_have_text("not in context")
    expect(badge).to_be_visible()
    page.reload()
    expect(badge).to_be_visible()
    ask(page, "two")
    done(page)
    assert getattr(engine.requests[-1].prompt.turns[1], "reasoning", "") is None
    more(page.locator(".turn.reply").first).click()
    expect(check).to_have_attribute("aria-checked", "false")
    check.click()
    expect(page.locator(".turn.reply").first.locator(".left-out")).to_be_hidden()
    ask(page, "three")
    done(page)
    assert getattr(engine.requests[-1].prompt.turns[1], "reasoning", "") == "Let me see."


def test_the_general_choice_shows_at_every_reply_that_has_none_of_its_own(page: Any, serve: Any) -> None:
    engine = ScriptedEngine(words)
    visit(page, serve(engine))
    ask(page, "one")
    done(page)
    ask(page, "two")
    done(page)
    badges = page.locator(".left-out")
    page.locator("#keep-reasoning").uncheck()
    expect(badges.nth(0)).to_be_visible()
    expect(badges.nth(1)).to_be_visible()
    more(page.locator(".turn.reply").first).click()
    check = page.get_by_role("menuitemcheckbox", name="Reasoning in context")
    expect(check).to_have_attribute("aria-checked", "false")
    check.click()
    expect(badges.nth(0)).to_be_hidden()
    expect(badges.nth(1)).to_be_visible()
    ask(page, "three")
    done(page)
    kept = [getattr(turn, "reasoning", None) for turn in engine.requests[-1].prompt.turns]
    assert kept == [None, "Let me see.", None, None, None]


def test_a_second_click_has_no_second_effect(page: Any, serve: Any) -> None:
    engine = ScriptedEngine(words)
    visit(page, serve(engine))
    box(page).fill("one")
    page.evaluate("""() => {
      const box = document.querySelector("#box textarea");
      const enter = () => new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true });
      for (let i = 0; i < 2; i += 1) box.dispatchEvent(enter());
      document.querySelector("#box .submit-button")?.click();
    }""")
    done(page)
    assert len(engine.requests) == 1
    reply(page).get_by_role("button", name="Regenerate").dblclick()
    expect(done(page).locator(".branch")).to_have_text(re.compile("2 / 2"))
    assert len(engine.requests) == 2
    page.evaluate("""() => {
      const press = (name) => [...document.querySelectorAll(".turn.reply:last-child button")].find((b) => b.textContent === name);
      for (let i = 0; i < 3; i += 1) press("Regenerate").click();
    }""")
    expect(done(page).locator(".branch")).to_have_text(re.compile("3 / 3"))
    assert len(engine.requests) == 3
    more(reply(page)).click()
    page.evaluate("""() => {
      const item = [...document.querySelectorAll("[role=menuitem]")].find((each) => each.textContent === "Delete");
      item.click();
      item.click();
    }""")
    expect(reply(page).locator(".branch")).to_have_text(re.compile("/ 2"))
    expect(page.locator("#turns .alert")).to_be_hidden()


def test_two_tabs_on_one_conversation_lose_no_turn(page: Any, context: Any, serve: Any) -> None:
    engine = ScriptedEngine(words)
    url = serve(engine)
    visit(page, url)
    ask(page, "one")
    done(page)
    other = context.new_page()
    visit(other, url)
    expect(other.locator(".turn")).to_have_count(2)
    ask(page, "slow")
    expect(page.locator(".reasoning-text").last).to_have_text("Slowly.")
    # The other tab does not know of it yet: it hears so, keeps what was written, and watches.
    attempt(other, "too early")
    expect(other.locator("#turns [role=alert]")).to_contain_text("still being written")
    expect(box(other)).to_have_value("too early")
    expect(other.locator(".turn")).to_have_count(4)
    expect(other.locator(".reasoning-text").last).to_have_text("Slowly.")
    expect(other.locator("#box .stop-button")).to_be_visible()
    other.locator("#box .stop-button").click()
    done(other)
    done(page)
    box(other).press("Enter")
    expect(other.locator(".turn")).to_have_count(6)
    done(other)
    # The first tab, which does not know of that, deletes a message and then changes what is gone.
    more(page.locator(".turn.user").nth(1)).click()
    item(page, "Delete this and everything after it").click()
    expect(page.locator(".toast")).to_contain_text("4 messages deleted.")
    expect(page.locator(".turn")).to_have_count(2)
    reply(other).get_by_role("button", name="Regenerate").click()
    expect(other.locator("#turns [role=alert]")).to_contain_text("no longer in the chat")
    expect(other.locator(".turn")).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".turn")).to_have_count(6)
    ask(page, "last")
    done(page)
    said = ["one", "slow", "too early", "last"]
    assert page.locator(".turn.user .said").all_inner_texts() == said
    other.reload()
    expect(other.locator(".turn")).to_have_count(8)
    assert other.locator(".turn.user .said").all_inner_texts() == said


def test_while_a_reply_is_written_the_menu_only_looks_and_copies(page: Any, serve: Any) -> None:
    engine = ScriptedEngine(words)
    visit(page, serve(engine))
    ask(page, "one")
    done(page)
    ask(page, "slow")
    more(page.locator(".turn.reply").first).click()
    expect(item(page, "Edit reasoning…")).to_have_attribute("aria-disabled", "true")
    expect(item(page, "Delete this and everything after it")).to_have_attribute("aria-disabled", "true")
    item(page, "Delete this and everything after it").dispatch_event("click")
    expect(page.locator(".turn")).to_have_count(4)
    item(page, "Details").click()
    expect(page.get_by_role("button", name="Reproduce this reply")).to_be_disabled()
    page.keyboard.press("Escape")
    page.locator("#box .stop-button").click()
    done(page)


LISTEN = """() => {
  window.heard = [];
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      const region = (target.nodeType === 1 ? target : target.parentElement)?.closest("[role=status]");
      if (region?.textContent && heard.at(-1) !== region.textContent) heard.push(region.textContent);
    }
  }).observe(document, { subtree: true, childList: true, characterData: true });
}"""
"""Writes down what a screen reader would say."""


def test_the_live_region_hears_thinking_then_the_answer(page: Any, serve: Any) -> None:
    visit(page, serve([Reasoning("A long thought. "), Pause(60), Answer("It is so.")]))
    page.evaluate(LISTEN)
    ask(page, "one")
    expect(page.locator(".reasoning-text")).to_have_text("A long thought.")
    page.locator(".answer-now").click()
    done(page)
    assert page.evaluate("heard") == ["Thinking…", "It is so."]


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_that_opens_leaves_the_window(page: Any, serve: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    visit(page, serve(words))
    ask(page, "one")
    done(page)
    page.evaluate("document.documentElement.dir = 'rtl'")

    def inside(element: Any) -> bool:
        at = element.bounding_box()
        return bool(at["x"] >= 0 and at["y"] >= 0 and at["x"] + at["width"] <= width and at["y"] + at["height"] <= 640)

    for turn in (page.locator(".turn.user"), reply(page)):
        more(turn).click()
        assert inside(page.get_by_role("menu"))
        page.keyboard.press("Escape")
    more(reply(page)).click()
    item(page, "Details").click()
    assert inside(page.get_by_role("dialog", name="Details"))
    page.keyboard.press("Escape")
    more(reply(page)).click()
    item(page, "Edit reasoning…").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
