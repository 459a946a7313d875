"""axe-core over every state of the page, in light and dark, on a wide screen and on a phone: nothing to complain about."""

from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.engines.base import Broken, GenerationRequest, Loading
from tests.browser.axe import violations, violations_in_both_themes
from tests.browser.steps import ask, attempt, box, done, more, reply, visit
from tests.scripted_engine import Pause, Script, ScriptedEngine

ANSWER = """# A heading

**Bold**, `code`, a [link](https://example.org) and $x^2$.

| a | b |
|---|---|
| 1 | 2 |

```python
def add(a, b):  # a comment
    return a + b + 1
```

```python
add(1, 2)
```

$$\\int_0^1 x\\,dx$$

> A quotation
"""


def script(request: GenerationRequest) -> Script:
    asked = request.prompt.turns[-1]
    match getattr(asked, "text", ""):
        case "think":
            return [Reasoning("Step by step. "), Pause(60)]
        case "fail":
            return [Reasoning("Let me"), Failed("out_of_memory")]
        case "long":
            return [Reasoning("Let me see."), Answer("It goes on"), Finished("length")]
    return [Reasoning("Let me see."), Answer(ANSWER)]


@pytest.fixture(params=[1280, 390])
def width(request: Any, page: Any) -> int:
    page.set_viewport_size({"width": request.param, "height": 844})
    page.emulate_media(reduced_motion="reduce")
    return int(request.param)


def test_no_violations_while_the_model_is_loading_and_when_it_could_not_be(page: Any, serve: Any, width: int) -> None:
    engine = ScriptedEngine(script, status=Loading("reading", 3_000_000_000, 48_000_000_000, 90))
    page.goto(serve(engine))
    expect(page.locator("#model-banner")).to_contain_text("3 GB of 48 GB")
    assert violations_in_both_themes(page) == []
    engine.set_status(Broken("model_not_found", {"model": "nowhere"}))
    expect(page.locator("#model-banner").get_by_role("alert")).to_be_visible()
    assert violations_in_both_themes(page) == []


def test_no_violations_in_a_conversation(page: Any, serve: Any, width: int) -> None:
    visit(page, serve(script))
    assert violations_in_both_themes(page) == []
    ask(page, "answer")
    expect(done(page).locator(".katex").first).to_be_visible()
    reply(page).locator(".reasoning summary").click()
    assert violations_in_both_themes(page) == []
    ask(page, "long")
    done(page)
    ask(page, "fail")
    done(page)
    assert violations_in_both_themes(page) == []
    ask(page, "think")
    expect(page.locator(".answer-now")).to_be_visible()
    assert violations_in_both_themes(page) == []
    attempt(page, "too early")
    expect(page.locator("#turns [role=alert]")).to_be_visible()
    assert violations_in_both_themes(page) == []
    page.locator("#box .stop-button").click()
    done(page).get_by_role("button", name="Regenerate").click()
    expect(page.locator(".answer-now")).to_be_visible()
    page.locator("#box .stop-button").click()
    expect(done(page).locator(".branch")).to_be_visible()
    page.locator(".turn.user").last.get_by_role("button", name="Edit").click()
    assert violations_in_both_themes(page) == []


def test_no_violations_in_what_opens_at_a_turn(page: Any, serve: Any, width: int) -> None:
    visit(page, serve(script))
    ask(page, "answer")
    more(done(page)).click()
    expect(page.get_by_role("menu")).to_be_visible()
    assert violations_in_both_themes(page) == []
    page.get_by_role("menuitem", name="Details").click()
    expect(page.get_by_role("dialog", name="Details")).to_be_visible()
    assert violations_in_both_themes(page) == []
    page.keyboard.press("Escape")
    more(reply(page)).click()
    page.get_by_role("menuitemcheckbox").click()
    expect(reply(page).locator(".left-out")).to_be_visible()
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Edit reasoning…").click()
    assert violations_in_both_themes(page) == []
    page.get_by_role("button", name="Keep thinking").click()
    expect(done(page).locator(".branch")).to_be_visible()
    more(reply(page)).click()
    page.get_by_role("menuitem", name="Delete", exact=True).click()
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    assert violations_in_both_themes(page) == []


def test_no_violations_in_the_settings(page: Any, serve: Any, width: int) -> None:
    visit(page, serve(script))
    if width < 1100:
        page.locator("#settings-toggle").click()
    expect(page.locator("#settings")).to_be_visible()
    expect(box(page)).to_be_attached()
    assert violations_in_both_themes(page) == []


def test_no_violations_from_right_to_left(page: Any, serve: Any) -> None:
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    page.set_extra_http_headers({"Accept-Language": "ar"})
    visit(page, serve(script))
    assert page.evaluate("document.documentElement.dir") == "rtl"
    ask(page, "answer")
    expect(page.locator(".open-conversation .title").first).to_have_css(
        "direction", "ltr"
    )  # its end is cut, not its start
    expect(done(page).locator(".katex").first).to_be_visible()
    reply(page).locator(".reasoning summary").click()
    assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#settings-toggle").click()
    expect(page.locator("#settings")).to_be_visible()
    assert violations(page) == []
