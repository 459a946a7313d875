"""Photographs the real page with the demo model, for the README: on a desk and a phone, light and dark; it tests nothing.

    python -m tests.screenshots

writes docs/screenshots/*.png; CHROMIUM names the browser.
"""

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

from magistral_ui.engines.base import Ready
from magistral_ui.engines.local.engine import LocalEngine
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from tests.browser.conftest import ARGUMENTS
from tests.browser.steps import ask, done, visit
from tests.loopback import free_port

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
IMAGE = ROOT / "magistral_ui" / "ui" / "assets" / "examples"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 780}
COLORS = 128
"""Colours in a file: enough for a page of text, and a third of the bytes."""


def talk(page: Any) -> None:
    """A sum, its follow-up, and a picture."""
    ask(page, "What is 487 + 265?")
    done(page)
    ask(page, "and plus 10?")
    done(page)
    image = next(IMAGE.glob("*.png"))
    page.locator("#box input[type=file]").set_input_files(image)
    expect(page.locator("#box .thumbnail-item")).to_be_visible()
    ask(page, "What shape is this, and what colour?")
    done(page)


def photograph(page: Any, name: str) -> None:
    """Write what is to be seen, in few colours."""
    from PIL import Image

    page.mouse.move(0, 0)
    page.wait_for_timeout(600)
    file = FOLDER / f"{name}.png"
    page.screenshot(path=file)
    with Image.open(file) as image:
        image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(file.relative_to(ROOT), f"{file.stat().st_size:,} bytes")


def photographs(browser: Any, url: str) -> None:
    """All of them, each visitor in a profile of its own."""
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport=DESK, color_scheme=scheme, locale="en", device_scale_factor=1.5)
        page = context.new_page()
        visit(page, url)
        talk(page)
        first = page.locator(".turn.reply").first
        first.locator(".reasoning summary").click()
        page.evaluate("scrollTo(0, 0)")
        photograph(page, f"desk-{scheme}")
        context.close()
    context = browser.new_context(viewport=PHONE, color_scheme="light", locale="en", device_scale_factor=1.5)
    page = context.new_page()
    visit(page, url)
    talk(page)
    photograph(page, "phone-light")
    context.close()


def main() -> None:
    """Serve, talk, and photograph."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        engine = LocalEngine(model="demo", threads=1)
        engine.start()
        while not isinstance(engine.status(), Ready):
            threading.Event().wait(0.1)
        visitors = Visitors(engine, history=History(Path(folder) / "data"))
        page = build_page(engine, visitors)
        url = launch(page, visitors, port=free_port())
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=ARGUMENTS)
        photographs(browser, url)
        browser.close()
        close(page)
        visitors.close()
        engine.close()


if __name__ == "__main__":
    main()
