"""The page under fingers: an empty chat begins at its top, targets are large enough, and nothing is squeezed to letters."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.engines.base import Broken, GenerationRequest
from tests.browser.conftest import SharedProfile
from tests.browser.pages import Serve
from tests.browser.steps import ask, attempt, box, done, more, reply, visit
from tests.scripted_engine import Pause, Script, ScriptedEngine

TABLE = "| Method | Multiplication | Mathematics | Programming | Since |\n|---|---|---|---|---|\n| Loop | a | b | c | 1842 |\n"
SMALLEST = 40
"""Pixels that a finger needs in each direction."""


def script(request: GenerationRequest) -> Script:
    if getattr(request.prompt.turns[-1], "text", "") == "think":
        return [Reasoning("Step by step. "), Pause(60)]
    return [Reasoning("Let me see."), Answer(TABLE)]


@pytest.fixture(scope="module")
def shared_profile(browser: Any) -> Iterator[SharedProfile]:
    """A profile on a phone."""
    profile = SharedProfile(browser, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    yield profile
    profile.context.close()


def small(page: Any) -> list[str]:
    """Controls in sight that a finger would miss, but for the two that answer around their box: the meter and the composer."""
    found: list[str] = page.evaluate(
        """(smallest) => [...document.querySelectorAll("button, input:not([type=file]), select, textarea, summary")]
          .filter((each) => each.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
          .filter((each) => !each.closest("[inert], .meter, .visually-hidden") && !each.matches("#box textarea"))
          .map((each) => each.closest(".chip, .check") ?? each)
          .filter((each) => { const { width, height } = each.getBoundingClientRect();
             return width > 1 && (width < smallest || height < smallest); })
          .map((each) => `${each.tagName}#${each.id}.${each.className} ${each.textContent.slice(0, 20)}`)""",
        SMALLEST,
    )
    return found


def test_a_finger_takes_an_image_out_of_the_message(page: Any, serve: Serve, tmp_path: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no picture")
    visit(page, serve(script))
    page.locator("#box input[type=file]").set_input_files([tmp_path / name for name in ("a.png", "b.png", "c.png")])
    remove = page.locator("#box .delete-button")
    expect(remove).to_have_count(2)
    expect(remove.first).to_have_css("opacity", "1")
    expect(page.locator(".refusals li")).to_have_count(1)
    assert small(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
    remove.first.tap()
    expect(remove).to_have_count(1)


def test_an_empty_chat_is_read_from_its_beginning(page: Any, serve: Serve) -> None:
    visit(page, serve(script))
    heading = page.locator(".welcome h2")
    expect(heading).to_be_in_viewport()
    assert page.evaluate("document.scrollingElement.scrollHeight > innerHeight")
    ask(page, "A question")
    done(page)
    page.locator("#new-chat").tap()
    expect(heading).to_be_in_viewport(ratio=1)
    expect(page.locator(".to-latest")).to_be_hidden()


def test_every_target_is_large_enough_for_a_finger(page: Any, serve: Serve) -> None:
    visit(page, serve(script))
    ask(page, "A question")
    done(page).locator(".reasoning summary").tap()
    assert small(page) == []
    more(reply(page)).tap()
    expect(page.get_by_role("menu")).to_be_visible()
    assert small(page) == []
    page.get_by_role("menuitem", name="Edit reasoning…").tap()
    assert small(page) == []
    page.locator("#thinking").tap()
    expect(page.locator(".thinking-menu")).to_be_visible()
    assert small(page) == []
    page.keyboard.press("Escape")
    page.locator("#settings-toggle").tap()
    page.locator("#more-parameters").evaluate("(details) => (details.open = true)")
    assert small(page) == []
    page.locator("#settings-close").tap()
    page.locator("#history-toggle").tap()
    page.locator("#history-list .unfold").tap()
    assert small(page) == []


def test_a_table_keeps_its_words_whole_and_scrolls_by_itself(page: Any, serve: Serve) -> None:
    visit(page, serve(script))
    ask(page, "A table")
    cells = done(page).locator("th")
    expect(cells.first).to_be_visible()
    assert len(set(cells.evaluate_all("(cells) => cells.map((each) => each.getClientRects()[0].height)"))) == 1
    assert cells.first.evaluate("(cell) => cell.clientHeight < 2 * parseFloat(getComputedStyle(cell).lineHeight)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_cannot_be_done_while_a_reply_is_written_waits_in_its_place(page: Any, serve: Serve) -> None:
    visit(page, serve(script))
    ask(page, "A question")
    done(page)
    ask(page, "think")
    expect(reply(page, 0).get_by_role("button", name="Regenerate")).to_be_disabled()
    attempt(page, "too early")
    alert = page.locator("#turns [role=alert]")
    expect(alert).to_be_visible()
    page.locator("#box .stop-button").tap()
    done(page)
    expect(alert).to_be_hidden()
    expect(reply(page, 0).get_by_role("button", name="Regenerate")).to_be_enabled()


def test_why_nothing_can_be_sent_yet_is_told_in_full(page: Any, serve: Serve) -> None:
    page.goto(serve(ScriptedEngine(script, status=Broken("out_of_memory_loading"))))
    expect(box(page)).to_have_attribute("placeholder", re.compile("The model couldn’t be loaded. See above"))
    assert box(page).evaluate("(field) => field.clientHeight > 1.9 * parseFloat(getComputedStyle(field).lineHeight)")
    assert box(page).evaluate("(field) => field.scrollWidth <= field.clientWidth")


def test_a_list_without_chats_says_so(page: Any, serve: Serve) -> None:
    visit(page, serve(script))
    expect(page.locator(".welcome h2")).to_be_visible()
    page.locator("#history-toggle").tap()
    expect(page.get_by_text("No chats yet")).to_be_visible()
    expect(page.locator("#history .find")).to_be_hidden()
    page.locator("#history-close").tap()
    ask(page, "A question")
    done(page)
    page.locator("#history-toggle").tap()
    expect(page.locator("#history .find")).to_be_visible()
    expect(page.get_by_text("No chats yet")).to_be_hidden()
