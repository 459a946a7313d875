"""A conversation too long to be sent at once: its end comes first, the rest when it is needed, and nothing is missing."""

from dataclasses import replace
from typing import Any

from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Ready
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import TabState, Visitors
from tests.browser.pages import Serve
from tests.browser.steps import ask, done, reply, visit
from tests.scripted_engine import INFO, Script, ScriptedEngine

REASONING = "Thinking about it. 🎉\n" * 2_000


AT_END = "document.scrollingElement.scrollHeight - innerHeight - document.scrollingElement.scrollTop < 90"


def script(request: GenerationRequest) -> Script:
    said = request.prompt.turns[-1].text
    return [Reasoning(REASONING + said), Answer(f"Answer to *{said}*.\n\n" + "Many words. " * 60)]


class Talkative(Visitors):
    """Visitors who have said much before they come."""

    turns = 40

    def open(self, place: object = None) -> tuple[TabState, Session]:
        place, session = super().open(place)
        while len(session.snapshot()[0].messages) < 2 * self.turns:
            number = len(session.snapshot()[0].messages) // 2
            session.say(f"question {number}", (), SamplingParams(seed=0)).generation.wait(60)
        return place, session


def serve_long(serve: Serve) -> str:
    status = Ready(replace(INFO, context_length=1_000_000))  # what does not fit is not sent
    return serve(ScriptedEngine(script, status=status), visitors=Talkative)


def test_the_end_is_there_first_and_the_rest_follows(page: Any, serve: Serve) -> None:
    visit(page, serve_long(serve))
    expect(reply(page).locator(".answer em")).to_have_text("question 39")
    page.wait_for_function(AT_END)
    expect(page.locator(".turn")).to_have_count(80)
    expect(page.locator(".turn.outline")).to_have_count(0)
    assert page.locator(".turn .answer em").all_text_contents() == [f"question {number}" for number in range(40)]
    assert page.locator(".turn .said").all_text_contents() == [f"question {number}" for number in range(40)]
    page.wait_for_function(AT_END)
    assert page.evaluate("document.body.innerHTML.length") < 800_000  # no reasoning that nobody has opened


def test_the_end_stays_in_sight_when_the_page_moves_by_itself_and_not_when_the_reader_moves_it(
    page: Any, serve: Serve
) -> None:
    shift = """() => {
        const turns = document.querySelectorAll(".turn");
        const height = (turn, more) => (turn.style.minBlockSize = `${turn.getBoundingClientRect().height + more}px`);
        height(turns[0], 400);
        requestAnimationFrame(() => requestAnimationFrame(() => {
            turns[0].style.minBlockSize = ""; // the browser moves the page up by as much
            height(turns[turns.length - 1], 300);
        }));
    }"""
    visit(page, serve_long(serve))
    expect(page.locator(".turn:not(.outline)")).to_have_count(80)
    page.wait_for_function(AT_END)
    page.evaluate(shift)
    page.wait_for_function("[...document.querySelectorAll('.turn')].at(-1).style.minBlockSize")
    page.wait_for_function(AT_END)
    expect(page.locator(".to-latest")).to_be_hidden()
    page.locator(".turn .said").last.click()
    page.keyboard.press("PageUp")
    expect(page.locator(".to-latest")).to_be_visible()
    page.evaluate(shift)
    page.wait_for_timeout(300)
    assert not page.evaluate(AT_END)
    page.locator(".to-latest").click()
    page.wait_for_function(AT_END)
    page.wait_for_timeout(1_500)  # the reader's hand is away
    page.evaluate(f"({shift})(); document.scrollingElement.scrollTop = 0")  # as a search in the page does
    page.wait_for_timeout(500)
    assert page.evaluate("document.scrollingElement.scrollTop") < 1_000


def test_a_reader_who_hurries_to_the_top_stays_where_they_are(page: Any, serve: Serve) -> None:
    page.add_init_script("window.requestIdleCallback = (job) => setTimeout(job, 100)")  # a browser that is always busy
    visit(page, serve_long(serve))
    expect(page.locator(".turn.outline").first).to_be_attached()
    expect(page.locator(".turn").last).to_be_in_viewport()
    page.mouse.move(600, 300)
    while page.evaluate("document.scrollingElement.scrollTop") > 0:
        page.mouse.wheel(0, -100_000)
        page.wait_for_timeout(50)
    expect(page.locator(".turn .said").first).to_have_text("question 0")
    expect(page.locator(".turn .said").first).to_be_in_viewport()
    expect(page.locator(".turn.outline")).to_have_count(0, timeout=60_000)
    expect(page.locator(".turn .said").first).to_be_in_viewport()


def test_reasoning_comes_when_it_is_opened(page: Any, serve: Serve) -> None:
    visit(page, serve_long(serve))
    expect(page.locator(".turn:not(.outline)")).to_have_count(80)
    for number in (39, 0, 20):
        details = reply(page, number).locator(".reasoning")
        details.locator("summary").click()
        expect(details.locator(".reasoning-text")).to_contain_text(f"question {number}")
        shown = details.evaluate("(each) => [...each.querySelectorAll('section')].map((s) => s.textContent).join('')")
        whole = f"{REASONING}question {number}"
        assert shown.replace("\n", "") == whole.replace("\n", "")


def test_a_turn_more_keeps_what_is_there(page: Any, serve: Serve) -> None:
    visit(page, serve_long(serve))
    expect(page.locator(".turn:not(.outline)")).to_have_count(80)
    page.evaluate("document.querySelectorAll('.turn').forEach((turn) => (turn.mine = true))")
    ask(page, "one more")
    done(page)
    assert page.evaluate("[...document.querySelectorAll('.turn')].filter((turn) => turn.mine).length") == 80
    expect(page.locator(".turn")).to_have_count(82)


def test_reasoning_that_was_not_opened_is_copied_and_edited_whole(page: Any, context: Any, serve: Serve) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, serve_long(serve))
    expect(page.locator(".turn:not(.outline)")).to_have_count(80)  # a menu closes when its button moves out of sight
    page.wait_for_function(AT_END)
    last = reply(page)
    last.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Copy reasoning", exact=True).click()
    expect(page.locator(".toast")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{REASONING}question 39"
    last.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Edit reasoning…").click()
    expect(page.get_by_role("textbox", name="Edit the reasoning")).to_have_value(f"{REASONING}question 39")
