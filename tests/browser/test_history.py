"""The list of conversations in a real browser, and a page that loses its line, its tab or its server."""

import sqlite3
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Finished, Reasoning, Usage
from magistral_ui.sessions.history.database import DATABASE_FILE, History
from magistral_ui.sessions.history.store import CUT_OFF
from tests.browser.axe import violations, violations_in_both_themes
from tests.browser.steps import ask, box, done, reply, visit
from tests.scripted_engine import Pause


def script(request: Any) -> Any:
    asked = request.prompt.turns[-1].text
    if asked == "slow":
        return [Answer("First words"), Pause(60)]
    return [Reasoning(f"thinking about {asked}"), Answer(f"**{asked}**, indeed")]


def new_chat(page: Any, *texts: str) -> None:
    for text in texts:
        page.get_by_role("button", name="New chat").click()
        expect(page.locator(".welcome")).to_be_visible()
        ask(page, text)
        done(page)


def titles(page: Any) -> Any:
    return page.locator("#history-list .title")


def unfold(page: Any, title: str) -> Any:
    entry = page.locator("#history-list li", has_text=title)
    entry.locator(".unfold").click()
    return entry


def of_all(page: Any, item: str) -> None:
    page.get_by_role("button", name="Options for all chats").click()
    page.get_by_role("menuitem", name=item).click()


def test_conversations_are_listed_opened_found_renamed_and_pinned(page: Any, serve: Any) -> None:
    visit(page, serve(script))
    new_chat(page, "apples", "pears")
    expect(titles(page)).to_have_text(["pears", "apples"])
    expect(page.locator("#history-list li.current .title")).to_have_text("pears")
    titles(page).nth(1).click()
    expect(page.locator(".turn.user .said")).to_have_text("apples")
    expect(reply(page).locator(".answer")).to_have_text("apples, indeed")
    expect(page.locator("#history-list li.current .title")).to_have_text("apples")
    page.get_by_role("searchbox").fill("about pear")
    expect(titles(page)).to_have_text(["pears"])
    expect(page.locator("#history-list .excerpt")).to_contain_text("thinking about pears")
    expect(page.locator("#history-list .told")).to_have_text("1 chat found")
    page.get_by_role("searchbox").fill("")
    expect(titles(page)).to_have_count(2)
    unfold(page, "apples").get_by_role("button", name="Rename").click()
    field = page.get_by_role("textbox", name="Chat name")
    field.fill("  Fruit ")
    field.press("Enter")
    expect(titles(page)).to_have_text(["pears", "Fruit"])
    unfold(page, "Fruit").get_by_role("button", name="Pin").click()
    expect(titles(page)).to_have_text(["Fruit", "pears"])
    expect(page.locator("#history-list h2").first).to_have_text("Pinned")
    page.reload()
    expect(titles(page)).to_have_text(["Fruit", "pears"])


def test_deleting_can_be_undone_and_forgetting_cannot(page: Any, serve: Any, tmp_path: Path) -> None:
    visit(page, serve(script))
    new_chat(page, "apples", "pears")
    expect(titles(page)).to_have_text(["pears", "apples"])
    unfold(page, "pears").get_by_role("button", name="Delete").click()
    expect(titles(page)).to_have_text(["apples"])
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator(".undone")).to_contain_text("“pears” was deleted.")
    page.get_by_role("button", name="Undo").click()
    expect(titles(page)).to_have_text(["pears", "apples"])
    expect(page.locator(".turn.user .said")).to_have_text("pears")
    of_all(page, "Delete all my data…")
    page.get_by_role("button", name="Delete everything").click()
    expect(page.locator("#history-list .told")).to_have_text("All your data was deleted.")
    expect(titles(page)).to_have_count(0)
    expect(page.locator(".welcome")).to_be_visible()
    with sqlite3.connect(tmp_path / "data" / DATABASE_FILE) as db:
        assert db.execute("SELECT count(*) FROM conversations").fetchone() == (0,)
    db.close()
    page.reload()
    expect(page.locator(".welcome")).to_be_visible()
    new_chat(page, "plums")
    expect(titles(page)).to_have_text(["plums"])


def test_the_list_works_by_keyboard_alone(page: Any, serve: Any) -> None:
    visit(page, serve(script))
    new_chat(page, "apples", "pears")
    expect(titles(page)).to_have_count(2)
    page.get_by_role("searchbox").focus()
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.user .said")).to_have_text("apples")
    page.locator("#history-list li", has_text="apples").locator(".open-conversation").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    actions = page.locator("#history-list li", has_text="apples").locator(".actions")
    expect(actions).to_be_visible()
    page.keyboard.press("Escape")
    expect(actions).to_be_hidden()
    expect(page.locator(":focus")).to_have_class("unfold")


def test_a_thousand_conversations_are_drawn_as_one_scrolls(page: Any, serve: Any, tmp_path: Path) -> None:
    url = serve(script)
    visit(page, url)
    ask(page, "first")
    done(page)
    with sqlite3.connect(tmp_path / "data" / DATABASE_FILE) as db:
        (visitor,) = db.execute("SELECT visitor FROM conversations").fetchone()
        rows = [(f"c{n}", visitor, f"title {n}", n, n, "{}") for n in range(1_000)]
        db.executemany(
            "INSERT INTO conversations(id, visitor, title, created, changed, state) VALUES (?,?,?,?,?,?)", rows
        )
    db.close()
    page.reload()
    expect(titles(page).nth(1)).to_have_text("title 999")
    assert titles(page).count() < 200
    page.locator("#history").evaluate("panel => panel.scrollTop = panel.scrollHeight")
    expect(titles(page).nth(100)).to_be_attached()
    page.get_by_role("searchbox").fill("title 17")
    expect(page.locator("#history-list .told")).to_have_text("20 chats found")


def test_the_list_is_a_drawer_on_a_phone(page: Any, serve: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    visit(page, serve(script))
    new_chat(page, "apples", "pears")
    expect(page.locator("#history")).to_be_hidden()
    page.locator("#history-toggle").click()
    expect(titles(page)).to_have_text(["pears", "apples"])
    titles(page).nth(1).click()
    expect(page.locator("#history")).to_be_hidden()
    expect(page.locator(".turn.user .said")).to_have_text("apples")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


def test_no_violations_in_the_list(page: Any, serve: Any) -> None:
    visit(page, serve(script))
    new_chat(page, "apples", "pears")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        if width < 1280:
            page.locator("#history-toggle").click()
        assert violations_in_both_themes(page) == []
    entry = unfold(page, "apples")
    of_all(page, "Delete all my data…")
    assert violations(page) == []
    entry.get_by_role("button", name="Rename").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    entry.get_by_role("button", name="Delete").click()
    expect(page.locator(".undone")).to_be_visible()
    assert violations(page) == []


def test_trouble_with_the_disk_is_told_and_the_chat_continues(page: Any, serve: Any, tmp_path: Path) -> None:
    held = History(tmp_path / "data")
    visit(page, serve(script))
    expect(page.locator(".trouble")).to_contain_text("Another Magistral UI is using")
    assert violations(page) == []
    new_chat(page, "apples")
    expect(titles(page)).to_have_text(["apples"])
    page.locator(".trouble").get_by_role("button", name="Dismiss").click()
    expect(page.locator(".trouble")).to_be_hidden()
    held.close()


def test_another_conversation_does_not_mix_with_one_that_is_being_written(page: Any, serve: Any) -> None:
    visit(page, serve(script))
    ask(page, "slow")
    expect(reply(page).locator(".answer")).to_have_text("First words")
    new_chat(page, "apples")
    expect(page.locator("#history-list li", has_text="slow").locator(".writing")).to_be_visible()
    titles(page).nth(1).click()
    expect(reply(page).locator(".answer")).to_have_text("First words")
    page.locator("#box .stop-button").click()
    expect(done(page)).to_contain_text("Stopped.")
    expect(page.locator("#history-list .writing:visible")).to_have_count(0)


def test_conversations_are_saved_as_files_and_brought_back(page: Any, serve: Any, tmp_path: Path) -> None:
    visit(page, serve(script))
    new_chat(page, "apples", "pears")
    expect(titles(page)).to_have_count(2)
    with page.expect_download() as waiting:
        unfold(page, "apples").get_by_role("button", name="Export as HTML").click()
    assert waiting.value.suggested_filename == "apples.html"
    with page.expect_download() as waiting:
        of_all(page, "Export all chats")
    waiting.value.save_as(tmp_path / "all.json")
    of_all(page, "Delete all my data…")
    page.get_by_role("button", name="Delete everything").click()
    expect(titles(page)).to_have_count(0)
    page.locator("#history-list input[type=file]").set_input_files(tmp_path / "all.json")
    expect(page.locator("#history-list .told")).to_have_text("2 chats imported.")
    expect(titles(page)).to_have_text(["pears", "apples"])
    titles(page).nth(1).click()
    expect(reply(page).locator(".answer")).to_have_text("apples, indeed")
    (tmp_path / "junk.json").write_text("{}")
    page.locator("#history-list input[type=file]").set_input_files(tmp_path / "junk.json")
    expect(page.locator("#history-list .told")).to_contain_text("contains no Magistral UI chat")
    assert violations(page) == []


def test_continue_is_named_only_where_a_reply_that_the_app_ended_can_go_on(page: Any, serve: Any) -> None:
    def ended(request: Any) -> Any:
        said = [Reasoning("hm")] if request.prompt.turns[-1].text == "begun" else []
        return [*said, CUT_OFF, Finished("cancelled", Usage())]

    visit(page, serve(ended))
    for text, buttons, note in (
        ("begun", 1, "The app stopped while this reply was being written. Choose “Continue” to resume it."),
        ("empty", 0, "The app stopped before anything was written."),
    ):
        ask(page, text)
        expect(done(page).get_by_role("button", name="Continue", exact=True)).to_have_count(buttons)
        expect(reply(page).locator(".notes")).to_have_text(note)


def counting(count: int) -> list[Any]:
    steps: list[Any] = []
    for number in range(count):
        steps += [Answer(f"word{number} "), Pause(0.02)]
    return steps


def test_an_answer_survives_a_cut_line(page: Any, context: Any, serve: Any) -> None:
    visit(page, serve(counting(200)))
    ask(page, "one")
    for number in (20, 60, 100):
        expect(reply(page).locator(".answer")).to_contain_text(f"word{number} ")
        context.set_offline(True)
        page.wait_for_timeout(300)
        context.set_offline(False)
    expect(done(page).locator(".answer")).to_have_text("".join(f"word{n} " for n in range(200)).strip())


def test_words_that_are_not_sent_yet_survive_a_reload(page: Any, serve: Any) -> None:
    visit(page, serve(script))
    ask(page, "one")
    done(page)
    box(page).fill("not sent yet")
    page.reload()
    expect(box(page)).to_have_value("not sent yet")
    expect(box(page)).to_be_enabled()
    box(page).press("Enter")
    expect(page.locator(".turn.user")).to_have_count(2)
    done(page)
    page.reload()
    expect(page.locator(".turn.user")).to_have_count(2)
    expect(box(page)).to_be_enabled()
    expect(box(page)).to_have_value("")
