"""People with names at one browser: whoever signs in next finds nothing of the one before, on the screen or behind it."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Error, expect

from magistral_ui.ui.asset_files import ASSETS_URL
from tests.browser.steps import ask, box, done, visit
from tests.security.conftest import Served, serving

PEOPLE = {"Alice": "right horse", "Bob": "left zebra"}
STORED = "() => [localStorage, sessionStorage].flatMap((each) => Object.entries(each)).map((each) => each.join('='))"
CHOOSE = f"""() => import(new URL("{ASSETS_URL}/settings.js", document.baseURI)).then((page) =>
  page.change({{ instructions: "kumquat wish" }}))"""


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("names"), passwords=PEOPLE) as served:
        yield served


def enter(page: Any, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PEOPLE[name])
    page.get_by_label("Password").press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_attached()  # the scripts are there
    expect(box(page)).to_be_enabled()


def leave(page: Any) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_who_signs_in_next_finds_nothing_of_the_one_before(named: Served, context: Any) -> None:
    page, other = context.new_page(), context.new_page()
    page.goto(named.url)
    enter(page, "Alice")
    ask(page, "my kumquat")
    done(page)
    page.evaluate(CHOOSE)
    other.goto(named.url)
    expect(other.locator(".turn.user").last).to_contain_text("my kumquat")
    box(other).fill("kumquat draft")
    page.bring_to_front()
    leave(page)
    expect(other.get_by_label("Password")).to_be_visible()
    assert page.evaluate(STORED) == []
    assert other.evaluate(STORED) == []
    page.go_back()
    expect(page.get_by_label("Password")).to_be_visible()
    enter(page, "Bob")
    expect(page.locator(".turn")).to_have_count(0)
    assert "kumquat" not in page.content()
    stored = page.evaluate(STORED)
    assert not [each for each in stored if "kumquat" in each or '"visitor"' in each], stored
    visit(other, named.url)
    expect(box(other)).to_have_value("")
    assert "kumquat" not in other.content()
    other.close()
    leave(page)
    enter(page, "Alice")
    expect(page.locator(".turn.user").last).to_contain_text("my kumquat")


def test_a_login_that_ends_by_itself_leaves_its_words_to_the_same_person_only(named: Served, context: Any) -> None:
    page = context.new_page()
    for name, finds in (("Alice", ""), ("Alice", "unsent"), ("Bob", "")):
        page.goto(named.url)
        enter(page, name)
        expect(box(page)).to_have_value(finds)
        box(page).fill("unsent")
        page.wait_for_load_state("load")  # what is cut while it comes is no whole script
        assert context.request.post(named.url + "/logout", max_redirects=0).status == 303
        with suppress(Error):  # the page asks every few seconds: it may be leaving already
            page.evaluate("dispatchEvent(new Event('visibilitychange'))")
        expect(page.get_by_label("Password")).to_be_visible()
