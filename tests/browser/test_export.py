"""An exported page in a real browser: nothing leaves it and nothing runs, and what it shows is what was said."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.reply import Reply
from magistral_ui.export.document import Document
from magistral_ui.export.html import POLICY, export_html
from magistral_ui.i18n.texts import text
from tests.browser.test_markdown import HOSTILE, RICH
from tests.export.conversations import image, sample

WIDE = f"""{"word" * 200}

| {"cell | " * 30}
|{"---|" * 30}
| {"1 | " * 30}

$$ {"a + " * 80} b $$

```
{"x" * 500}
```
"""
SIZES = [(360, 740), (1280, 800)]


@pytest.fixture
def offline(context: Any, tmp_path: Path) -> Any:
    """Opens a page from the disk; a request to anywhere is a failure."""

    def open_page(html: str) -> tuple[Any, list[str]]:
        file = tmp_path / "export.html"
        file.write_text(html, encoding="utf-8")
        page, asked = context.new_page(), []
        context.unroute("**/*")
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page, [url for url in asked if not url.startswith(("data:", file.as_uri()))]

    return open_page


def said(reply: str, reasoning: str = "") -> Document:
    return Document(Conversation().say("go").with_reply(Reply(reasoning, reply, finish_reason="stop")), "Said")


def test_it_shows_what_was_said_with_the_reasoning_folded(offline: Any) -> None:
    page, asked = offline(export_html([sample()], text))
    expect(page.get_by_role("heading", level=1)).to_have_text("A sum")
    expect(page.locator(".said").first).to_have_text("What is 487 + 265?")
    expect(page.locator(".reasoning").first).to_be_hidden()
    page.get_by_text("Thought for 12.3 s · 843 tokens").click()
    expect(page.locator(".reasoning").first).to_contain_text("Carry the one.")
    expect(page.locator(".answer strong")).to_have_text("752")
    image = page.locator("img")
    assert image.evaluate("image => image.complete && image.naturalWidth") == 64
    assert asked == []


def test_formulas_are_drawn_without_a_script(offline: Any) -> None:
    page, asked = offline(export_html([said(RICH)], text))
    assert page.locator("script").count() == 0
    assert page.locator("math").count() == 5
    fraction = page.locator("mfrac").first
    assert fraction.bounding_box()["height"] > 1.5 * page.locator("mfrac mn").first.bounding_box()["height"]
    assert asked == []


def test_hostile_text_is_shown_and_does_nothing(offline: Any) -> None:
    document = Document(
        Conversation()
        .say(HOSTILE, (image("red", "PNG", '"><img src=x onerror=alert(1)>'),))
        .with_reply(Reply(HOSTILE, HOSTILE, model=HOSTILE, failure="unexpected", failure_values={"x": HOSTILE})),
        HOSTILE,
    )
    page, asked = offline(export_html([document, document], text, '"><script>window.hacked = 1</script>'))
    page.locator("summary").first.click()
    for part in (".said", ".answer", ".reasoning", "h1", "footer"):
        expect(page.locator(part).first).to_contain_text("<script>window.hacked = 1</script>")
    assert page.evaluate("window.hacked") is None
    assert (
        page.evaluate(
            "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).filter(a => a.name.startsWith('on')).length"
        )
        == 0
    )
    schemes = page.evaluate(
        "[...document.querySelectorAll('[href], [src]')].map(e => (e.getAttribute('href') ?? e.src).split(':')[0])"
    )
    assert set(schemes) <= {"http", "https", "mailto", "data", "#c1", "#c2"}
    assert page.locator("img, image, svg, iframe, base, form, link, object, script").count() == 2
    assert asked == []


@pytest.mark.parametrize("guarded", [True, False])
def test_the_policy_stops_what_would_get_through_the_escaping(offline: Any, guarded: bool) -> None:
    """The second wall, tried by itself: with the first taken away nothing runs and nothing is asked for; else it would."""
    html = export_html([sample()], text)
    with listening() as (address, heard):
        script = f"<script src='{address}/a.js'></script><script>window.hacked = 1</script>"
        attack = f"{script}<img src='{address}/b.png'><link rel=stylesheet href='{address}/c.css'>"
        html = html.replace("</main>", f"{attack}</main>")
        page, _ = offline(html if guarded else html.replace(POLICY, ""))
        assert page.evaluate("window.hacked ?? null") == (None if guarded else 1)
    assert set(heard) == (set() if guarded else {"/a.js", "/b.png", "/c.css"})


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback: its address, and the paths that were asked for."""
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size[0]))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_keeps_nobody_out_and_fits_the_screen(offline: Any, size: tuple[int, int], scheme: Any) -> None:
    page, _ = offline(export_html([sample(), said(RICH + WIDE, "word" * 200)], text))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
