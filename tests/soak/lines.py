"""Cuts the browser's network in the middle of answers, again and again: what is shown must be what the engine wrote."""

import argparse
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from tests.browser.conftest import ARGUMENTS
from tests.browser.steps import ask, done, reply, visit
from tests.loopback import free_port
from tests.scripted_engine import Pause, ScriptedEngine

WORDS = 150


def script(request: Any) -> list[Any]:
    """Two seconds of reasoning and four of answer."""
    said = request.prompt.turns[-1].text
    steps: list[Any] = []
    for number in range(WORDS):
        steps += [Reasoning(f"{said} thought {number}. "), Pause(0.015)]
    for number in range(WORDS):
        steps += [Answer(f"{said} word {number}. "), Pause(0.03)]
    return steps


def cut_once(page: Any, context: Any, number: int, chance: random.Random) -> None:
    """One answer, with its line cut for a random time at a random moment; sometimes the tab is loaded again."""
    said = f"turn{number}"
    ask(page, said)
    page.wait_for_timeout(chance.uniform(100, 5_000))
    context.set_offline(True)
    page.wait_for_timeout(chance.uniform(50, 3_000))
    context.set_offline(False)
    if chance.random() < 0.2:
        page.reload()
        expect(page.locator(".turn.user .said").last).to_have_text(said)
    written = done(page)
    expect(written.locator(".answer")).to_have_text("".join(f"{said} word {n}. " for n in range(WORDS)).strip())
    if written.locator(".reasoning").get_attribute("open") is None:
        written.locator(".reasoning summary").click()
    whole = "".join(f"{said} thought {n}. " for n in range(WORDS))
    expect(written.locator(".reasoning-text")).to_have_text(whole.strip())
    assert reply(page).locator(".reasoning-text").text_content() == whole, "a character is missing, or twice"
    expect(page.locator(".turn")).to_have_count(2 * (number % 10 + 1))


def main() -> None:
    """`python -m tests.soak.lines [--rounds N]`; CHROMIUM names the browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    chosen = parser.parse_args()
    expect.set_options(timeout=60_000)
    engine, chance = ScriptedEngine(script), random.Random(1)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        visitors = Visitors(engine, history=History(Path(folder) / "data"))
        demo = build_page(engine, visitors)
        url = launch(demo, visitors, port=free_port())
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=ARGUMENTS)
        context = browser.new_context()
        context.set_default_timeout(60_000)
        page = context.new_page()
        visit(page, url)
        for number in range(chosen.rounds):
            if number and number % 10 == 0:
                page.get_by_role("button", name="New chat").click()
                expect(page.locator(".turn")).to_have_count(0)
            cut_once(page, context, number, chance)
            print(f"{number + 1} cuts, nothing missing, nothing twice", flush=True)
        browser.close()
        close(demo)
        visitors.close()
        engine.close()


if __name__ == "__main__":
    main()
