"""The page in the visitor's language: what the browser asks for, what is chosen in the page, and from right to left."""

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.i18n import languages
from magistral_ui.i18n.languages import LANGUAGES
from magistral_ui.i18n.texts import category, text_in
from tests.browser.pages import Serve
from tests.browser.steps import ask, box, done, visit

SCRIPT = [Reasoning("Let me see. "), Answer("Two `a = b` and $x^2$.\n\n```python\nprint(1)\n```\n\n- one\n")]
MANY = (*range(130), 199, 200, 1_000, 1_001, 1_011, 1_000_000, 2_000_000)


@pytest.fixture(autouse=True)
def all_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every language, also while one of its texts is missing (it is English then)."""
    monkeypatch.setattr(languages, "offered", lambda: LANGUAGES)
    monkeypatch.setattr("magistral_ui.ui.page.offered", lambda: LANGUAGES)


def open_as(browser_context: Any, url: str, accepted: str) -> Any:
    page = browser_context.new_page()
    page.set_extra_http_headers({"Accept-Language": accepted})
    visit(page, url)
    return page


def overflow(page: Any) -> list[str]:
    """What is wider than the screen, or cut at its edge."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("body *")]
          .filter((each) => each.checkVisibility({ visibilityProperty: true }))
          .filter((each) => !each.closest("[inert], pre, .katex, .visually-hidden"))
          .filter((each) => { const box = each.getBoundingClientRect();
             return box.width > 0 && (box.left < -1 || box.right > innerWidth + 1); })
          .map((each) => each.tagName + "#" + each.id + "." + each.className)"""
    )
    return found


def test_the_page_comes_in_the_language_that_the_browser_asks_for(context: Any, serve: Serve) -> None:
    page = open_as(context, serve(SCRIPT), "de-AT,de;q=0.9")
    assert page.evaluate("[document.documentElement.lang, document.documentElement.dir]") == ["de", "ltr"]
    expect(page.locator("#settings-toggle")).to_have_text(text_in("de", "page_settings"))
    expect(page.locator("#box .submit-button")).to_have_attribute("aria-label", text_in("de", "composer_send"))
    expect(page.locator("#settings")).to_contain_text(text_in("de", "parameters_heading"))


def test_a_chosen_language_is_kept_and_can_be_given_back(context: Any, serve: Serve) -> None:
    url = serve(SCRIPT)
    page = open_as(context, url, "en")
    choice = page.locator("#language-choice")
    expect(choice.locator("option")).to_have_count(len(LANGUAGES) + 1)
    with page.expect_navigation():
        choice.select_option("fr")
    box(page).wait_for()
    assert page.evaluate("document.documentElement.lang") == "fr"
    page.reload()
    expect(page.locator("#settings-toggle")).to_have_text(text_in("fr", "page_settings"))
    expect(choice).to_have_value("fr")
    expect(page.locator("label[for=language-choice]")).to_have_text(text_in("fr", "language_heading"))
    with page.expect_navigation():
        choice.select_option("")
    box(page).wait_for()
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("code", ["ar", "de"])
def test_a_turn_and_the_panel_fit_the_screen(context: Any, serve: Serve, code: str, width: int) -> None:
    page = open_as(context, serve(SCRIPT), code)
    page.set_viewport_size({"width": width, "height": 740})
    ask(page, "How much is it?")
    done(page)
    assert overflow(page) == []
    if page.locator("#settings-toggle").get_attribute("aria-expanded") == "false":
        page.locator("#settings-toggle").click()
    expect(page.locator("#language-choice")).to_be_attached()
    assert overflow(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_from_right_to_left_the_panel_stands_left_and_code_stays_as_it_is(context: Any, serve: Serve) -> None:
    page = open_as(context, serve(SCRIPT), "fa-IR")
    assert page.evaluate("document.documentElement.dir") == "rtl"
    ask(page, "Hello")
    done(page)
    panel, conversation = page.locator("#settings").bounding_box(), page.locator("#conversation").bounding_box()
    assert panel["x"] < conversation["x"]
    directions = page.evaluate(
        """() => [".answer pre", ".answer :not(pre) > code", ".answer .katex"]
             .map((each) => getComputedStyle(document.querySelector(each)).direction)"""
    )
    assert directions == ["ltr", "ltr", "ltr"]


def test_plural_forms_are_those_of_the_browser(page: Any) -> None:
    forms = page.evaluate(
        """([tags, counts]) => tags.map((tag) => counts.map((count) => new Intl.PluralRules(tag).select(count)))""",
        [[each.tag for each in LANGUAGES.values()], MANY],
    )
    found = {code: [category(code, count) for count in MANY] for code in LANGUAGES}
    assert found == dict(zip(LANGUAGES, forms, strict=True)), json.dumps(forms)
