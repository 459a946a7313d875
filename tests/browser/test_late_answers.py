"""Answers that come late, or overtake each other: whatever their order, the page ends showing what the server has."""

from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Reasoning
from tests.browser.steps import ask, attempt, box, done, reply, visit
from tests.scripted_engine import Pause

ACTIONS = "**/magistral/act/**"
DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(drawn))))"
WATCH = """() => {
  window.gone = 0;
  const count = (changes) => changes.forEach(({ removedNodes }) => (gone += removedNodes.length));
  new MutationObserver(count).observe(document.querySelector("#turns .turns"), { childList: true });
}"""
"""Counts turns that are taken away."""
LOOK = 50
"""Milliseconds between two looks for an answer."""


def words(request: Any) -> Any:
    said = request.prompt.turns[-1].text
    if said == "slow":
        return [Reasoning("Slowly."), Pause(60)]
    return [Reasoning("Let me see."), Answer(f"You said {said}.")]


class Held:
    """The answers to one action, which the server has given and the page does not get before `release`."""

    def __init__(self, page: Any, action: str) -> None:
        self._page, self._action = page, action
        self._answers: list[tuple[Any, Any]] = []
        page.route(f"**/magistral/act/{action}", lambda route: self._answers.append((route, route.fetch())))

    def wait(self, count: int = 1) -> None:
        """Until the server has given so many answers, within the time that a step of the browser may take."""
        for _ in range(20_000 // LOOK):
            if len(self._answers) >= count:
                return
            self._page.wait_for_timeout(LOOK)
        raise AssertionError(f"{self._action} was not asked {count} times")

    def lose(self) -> None:
        """Let the line drop in their place."""
        for route, _ in self._answers:
            route.abort()
        self._page.unroute_all(behavior="ignoreErrors")

    def release(self) -> None:
        """Let them go, the latest first, and give the page time to draw each."""
        for route, answer in reversed(self._answers):
            with self._page.expect_event("requestfinished", lambda request, mine=route.request: request == mine):
                route.fulfill(response=answer)
            self._page.evaluate(DRAWN)
        self._page.unroute_all(behavior="ignoreErrors")


def test_what_was_said_stays_when_an_answer_from_before_it_comes_late(page: Any, serve: Any) -> None:
    held = Held(page, "model/ready")
    visit(page, serve(words))
    held.wait()
    ask(page, "one")
    done(page)
    page.evaluate(WATCH)
    held.release()
    ask(page, "two")
    done(page)
    expect(page.locator(".turn.user .said")).to_have_text(["one", "two"])
    assert page.evaluate("gone") == 0


def test_a_running_reply_can_be_stopped_though_a_composer_from_before_it_came_late(page: Any, serve: Any) -> None:
    held = Held(page, "model/ready")
    visit(page, serve(words))
    held.wait()
    ask(page, "slow")
    expect(page.locator(".reasoning-text")).to_have_text("Slowly.")
    held.release()
    expect(page.locator("#box .stop-button")).to_be_visible()
    page.locator("#box .stop-button").click()
    expect(done(page).locator(".note")).to_have_text("Stopped.")


def test_nothing_can_be_sent_before_the_page_knows_whose_it_is(page: Any, serve: Any) -> None:
    engine_url = serve(words)
    held = Held(page, "turns/attach")
    page.goto(engine_url)
    held.wait()
    expect(page.locator("#model-name")).not_to_be_empty()
    expect(box(page)).to_be_disabled()
    held.release()
    expect(box(page)).to_be_enabled()
    ask(page, "one")
    done(page)
    page.reload()
    expect(page.locator(".turn")).to_have_count(2)


def test_the_conversation_that_was_asked_for_last_is_shown(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    ask(page, "apples")
    done(page)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".welcome")).to_be_visible()
    ask(page, "pears")
    done(page)
    expect(page.locator("#history-list .title")).to_have_text(["pears", "apples"])
    held = Held(page, "history/open")
    page.locator("#history-list .title").nth(0).click()
    page.locator("#history-list .title").nth(1).click()
    held.wait(2)
    held.release()
    expect(page.locator(".turn.user .said")).to_have_text("apples")
    ask(page, "plums")
    done(page)
    expect(page.locator(".turn.user .said")).to_have_text(["apples", "plums"])


def test_a_message_that_is_answered_late_does_not_turn_the_page_back(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    held = Held(page, "composer/say")
    attempt(page, "one")
    held.wait()
    with page.expect_response("**/magistral/act/turns/new_chat"):
        page.get_by_role("button", name="New chat").click()
    held.release()
    ask(page, "two")
    done(page)
    expect(page.locator(".turn.user .said")).to_have_text("two")
    expect(page.locator("#history-list .title")).to_have_text(["two", "one"])


def test_words_that_are_typed_while_a_message_is_on_its_way_stay(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    held = Held(page, "composer/say")
    attempt(page, "one")
    held.wait()
    box(page).press_sequentially(" and more")
    held.release()
    done(page)
    expect(page.locator(".turn.user .said")).to_have_text("one")
    expect(box(page)).to_have_value("and more")
    box(page).press("Enter")
    expect(page.locator(".turn.user .said")).to_have_text(["one", "and more"])
    expect(box(page)).to_have_value("")


@pytest.mark.parametrize("event", ["rename", "refresh"])
def test_what_is_unfolded_in_the_list_stays_when_the_list_comes(page: Any, serve: Any, event: str) -> None:
    visit(page, serve(words))
    ask(page, "apples")
    done(page)
    entry = page.locator("#history-list li")
    expect(entry.locator(".title")).to_have_text("apples")
    held = Held(page, f"history/{event}")
    entry.locator(".unfold").click()
    entry.get_by_role("button", name="Rename").click()
    field = page.get_by_role("textbox", name="Chat name")
    field.fill("Fruit")
    field.press("Enter")
    if event == "refresh":
        page.get_by_role("searchbox").fill("fru")
    held.wait()
    entry.locator(".unfold").click()
    pin = entry.get_by_role("button", name="Pin")
    pin.focus()
    held.release()
    expect(pin).to_be_focused()
    expect(entry.locator(".title")).to_have_text("Fruit")
    pin.click()
    page.get_by_role("searchbox").fill("")
    expect(page.locator("#history-list h2")).to_have_text("Pinned")


def test_a_list_from_before_a_change_does_not_take_it_back(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    ask(page, "apples")
    done(page)
    entry = page.locator("#history-list li")
    expect(entry.locator(".title")).to_have_text("apples")
    held = Held(page, "history/refresh")
    page.evaluate("dispatchEvent(new CustomEvent('conversation', { detail: { id: null } }))")
    held.wait()
    entry.locator(".unfold").click()
    entry.get_by_role("button", name="Rename").click()
    field = page.get_by_role("textbox", name="Chat name")
    field.fill("Fruit")
    field.press("Enter")
    expect(reply(page)).to_be_visible()
    with page.expect_response(ACTIONS):
        entry.locator(".unfold").click()
        entry.get_by_role("button", name="Pin").click()
    expect(page.locator("#history-list h2")).to_have_text("Pinned")
    held.release()
    expect(page.locator("#history-list h2")).to_have_text("Pinned")
    expect(entry.locator(".title")).to_have_text("Fruit")


def test_a_conversation_that_does_not_come_is_asked_for_again(page: Any, serve: Any) -> None:
    url = serve(words)
    held = Held(page, "turns/attach")
    page.goto(url)
    held.wait()
    held.lose()
    expect(box(page)).to_be_enabled()
    ask(page, "one")
    done(page)
