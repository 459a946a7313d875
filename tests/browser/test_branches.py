"""Changing one's mind in a real browser over a scripted engine: going on, answering again, other words, other branches."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.engines.base import GenerationRequest
from tests.browser.steps import ask, done, more, reply, thought, visit
from tests.scripted_engine import Pause, Script


def words(request: GenerationRequest) -> Script:
    """What was asked comes back; a reply that is taken up says what it was taken up with."""
    resume = request.prompt.resume
    if resume is None:
        asked = getattr(request.prompt.turns[-1], "text", "")
        return [Reasoning("Let me see. "), Answer(f"You said {asked}.")]
    return [Answer(f"Again: {resume.reasoning}")]


SAMPLE = """
window.sampled = [];
const look = () => {
  const answer = document.querySelector(".answer");
  sampled.push([answer.innerText, Math.round(answer.getBoundingClientRect().top)]);
  requestAnimationFrame(look);
};
look();
"""
"""Writes down, for each frame, what is to be read in the answer and where it begins."""


def button(turn: Any, name: str) -> Any:
    return turn.get_by_role("button", name=name, exact=True)


def cut_while_thinking(request: GenerationRequest) -> Script:
    """Cut in its reasoning as the question says, a second time when it goes on, and then answered."""
    asked, resume = getattr(request.prompt.turns[-1], "text", ""), request.prompt.resume
    if resume is None:
        ways: dict[str, Script] = {
            "length": [Finished("length")],
            "failed": [Failed("out_of_memory")],
            "stopped": [Pause(60)],
        }
        return [Reasoning("One. "), *ways[asked]]
    if resume.reasoning == "One. ":
        return [Reasoning("Two. "), Finished("length")]
    return [Reasoning("Three. "), Answer("It is **four**.")]


@pytest.mark.parametrize("asked", ["length", "failed", "stopped"])
def test_a_reply_that_was_cut_in_its_reasoning_shows_the_answer_when_it_continues(
    page: Any, context: Any, serve: Any, asked: str
) -> None:
    url = serve(cut_while_thinking)
    visit(page, url)
    ask(page, asked)
    if asked == "stopped":
        expect(reply(page).locator(".reasoning-text")).to_have_text("One. ")
        page.locator("#box .stop-button").click()
    assert thought(done(page)) == "One. "
    second = context.new_page()
    visit(second, url)
    assert thought(done(second)) == "One. "
    button(reply(page), "Continue").click()
    expect(reply(page).locator(".reasoning-text")).to_have_text("One. Two. ")
    expect(reply(page).locator(".answer")).to_be_hidden()
    button(done(page), "Continue").click()
    expect(done(page).locator(".answer strong")).to_have_text("four")
    assert thought(reply(page)) == "One. Two. Three. "
    expect(page.locator(".answer")).to_have_count(1)
    expect(button(reply(page), "Continue")).to_have_count(0)
    second.evaluate("dispatchEvent(new Event('online'))")  # the reader comes back to the other tab
    expect(second.locator(".answer strong")).to_have_text("four")
    assert thought(done(second)) == "One. Two. Three. "
    expect(second.locator(".notes p")).to_have_count(0)


def test_a_reload_in_the_middle_of_going_on_shows_the_answer(page: Any, serve: Any) -> None:
    def script(request: GenerationRequest) -> Script:
        if request.prompt.resume is None:
            return [Reasoning("One. "), Finished("length")]
        return [Reasoning("Two. "), Pause(60), Answer("Four.")]

    visit(page, serve(script))
    ask(page, "count")
    button(done(page), "Continue").click()
    expect(reply(page).locator(".reasoning-text")).to_have_text("One. Two. ")
    page.reload()
    expect(reply(page).locator(".reasoning-text")).to_have_text("One. Two. ")
    page.locator(".answer-now").click()
    expect(done(page).locator(".answer")).to_have_text("Four.")
    assert thought(reply(page)) == "One. Two. "


def test_a_reply_that_was_cut_in_its_answer_continues_where_it_stands(page: Any, serve: Any) -> None:
    def script(request: GenerationRequest) -> Script:
        if request.prompt.resume is None:
            return [Reasoning("hm"), Answer("**One** and "), Finished("length")]
        return [Pause(0.5), Answer("**two**"), Pause(0.5), Answer(".")]

    visit(page, serve(script))
    ask(page, "count")
    expect(done(page)).to_contain_text("Stopped at the limit of 2 tokens")
    page.evaluate("document.querySelector('.turn.reply').mine = document.querySelector('.reasoning').mine = true")
    expect(reply(page).locator(".answer strong")).to_have_text("One")
    page.evaluate(SAMPLE)
    button(reply(page), "Continue").click()
    expect(page.locator("body")).to_have_class(re.compile("answering"))
    expect(reply(page).locator(".answer")).to_have_text("One and two.")
    done(page)
    seen = page.evaluate("sampled")
    assert {(text[:7], top) for text, top in seen} == {("One and", seen[0][1])}
    assert page.evaluate("document.querySelector('.turn.reply').mine && document.querySelector('.reasoning').mine")
    expect(reply(page).locator(".facts")).to_have_text(re.compile("4 tokens"))
    expect(reply(page).locator(".branch")).to_be_hidden()
    expect(button(reply(page), "Continue")).to_have_count(0)
    assert page.locator(".turn").count() == 2


def test_a_reply_that_was_stopped_while_thinking_thinks_on_also_after_a_reload(page: Any, serve: Any) -> None:
    def script(request: GenerationRequest) -> Script:
        if request.prompt.resume is None:
            return [Reasoning("first, "), Pause(60)]
        return [Reasoning("second, "), Pause(60), Reasoning("third"), Answer("Done.")]

    url = serve(script)
    visit(page, url)
    ask(page, "think")
    expect(page.locator(".reasoning-text")).to_have_text("first,")
    page.locator("#box .stop-button").click()
    button(done(page), "Continue").click()
    expect(page.locator(".reasoning-text")).to_have_text("first, second,")
    page.reload()
    expect(page.locator(".reasoning-text")).to_have_text("first, second,")
    page.locator(".answer-now").click()
    expect(done(page).locator(".answer")).to_have_text("Done.")
    expect(page.locator(".reasoning summary")).to_have_text(
        re.compile(r"Thought for .* 2 tokens|Thought for .*2 tokens")
    )


def test_answering_again_keeps_the_reasoning_and_the_arrows_lead_back(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    ask(page, "hello")
    expect(done(page).locator(".branch")).to_be_hidden()
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Answer again from this reasoning").click()
    expect(reply(page).locator(".answer")).to_have_text("Again: Let me see.")
    expect(done(page).locator(".branch")).to_have_text(re.compile("2 / 2"))
    expect(button(reply(page), "Next version")).to_be_disabled()
    button(reply(page), "Previous version").press("Enter")
    expect(reply(page).locator(".answer")).to_have_text("You said hello.")
    expect(reply(page).get_by_role("group", name="Version 1 of 2")).to_be_visible()
    expect(button(reply(page), "Next version")).to_be_focused()


def test_a_message_in_other_words_is_a_branch_of_its_own(page: Any, serve: Any) -> None:
    visit(page, serve(words))
    ask(page, "one")
    done(page)
    ask(page, "more")
    done(page)
    first = page.locator(".turn.user").first
    button(first, "Edit").click()
    field = first.get_by_role("textbox", name="Edit your message")
    expect(field).to_be_focused()
    field.press("Escape")
    expect(first.locator(".said")).to_have_text("one")
    expect(button(first, "Edit")).to_be_focused()
    button(first, "Edit").press("Enter")
    field.fill("two")
    field.press("Enter")
    expect(reply(page).locator(".answer")).to_have_text("You said two.")
    done(page)
    expect(page.locator(".turn")).to_have_count(2)
    expect(first.locator(".branch")).to_have_text(re.compile("2 / 2"))
    button(first, "Previous version").click()
    expect(page.locator(".turn")).to_have_count(4)
    expect(reply(page).locator(".answer")).to_have_text("You said more.")
    page.reload()
    expect(page.locator(".turn")).to_have_count(4)
