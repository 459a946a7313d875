"""The page below a path, behind a real nginx that takes the path off or leaves it: signing in, chatting, pictures, files."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import expect

from magistral_ui.web.exposure import Exposure
from tests.browser.steps import ask, done, visit
from tests.browser.test_history import of_all
from tests.nginx import HEADERS, proxied, proxy_port
from tests.security.conftest import Served, serving

PASSWORD = "abcd-efgh-jkmn"
BARE = ""
"""A proxy that tells nothing about itself, not even the name under which it was asked."""
WAYS = {
    "path taken off, named by --share": (True, HEADERS, "/ai"),
    "path left, named by --share": (False, HEADERS, "/ai"),
    "path left, named by a header": (False, HEADERS, ""),
    "path taken off, named nowhere": (True, BARE, ""),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def below(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Served]]:
    """The address below which the page stands, and the page."""
    strips, headers, known = request.param
    port = proxy_port()
    public = Exposure("proxy", url=f"http://127.0.0.1:{port}{known}")
    with (
        serving(tmp_path, exposure=public, passwords={"": PASSWORD}) as served,
        proxied(tmp_path / "nginx", port, served.port, "/ai", strips=strips, headers=headers) as url,
    ):
        yield url, served


def test_everything_of_the_page_works_below_a_path(below: tuple[str, Served], page: Any, tmp_path: Path) -> None:
    url, served = below
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: failed.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    failed: list[str] = []
    page.goto(url)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Password").press("Enter")
    expect(page).to_have_url(url)
    visit(page, url)
    teal = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(teal, "PNG")
    page.locator("#box input[type=file]").first.set_input_files(
        [{"name": "teal.png", "mimeType": "image/png", "buffer": teal.getvalue()}]
    )
    expect(page.locator("#box img")).to_be_visible()
    ask(page, "What is this?")
    expect(done(page)).to_contain_text("you said What is this?")
    assert len(served.engine.requests[-1].prompt.turns[-1].images) == 1  # type: ignore[union-attr]
    page.reload()
    expect(page.locator(".turn.user img, .turn.message img").first).to_be_visible()
    expect(page.locator("#history-list [data-entry]").first).to_be_attached()  # the menu is about what is listed
    with page.expect_download() as download:
        of_all(page, "Export all chats")
    assert "you said What is this?" in Path(download.value.path()).read_text(encoding="utf-8")
    outside = [each for each in asked if each.startswith("http") and not urlsplit(each).path.startswith("/ai/")]
    assert outside == []
    assert failed == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
