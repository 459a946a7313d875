"""What a person does on the page, in words; the tests' steps, not their claims."""

from typing import Any

from playwright.sync_api import expect

expect.set_options(timeout=20_000)


def visit(page: Any, url: str) -> None:
    """Open the page and wait until one can write, and its scripts have drawn what is said."""
    page.goto(url)
    expect(box(page)).to_be_enabled()
    expect(page.locator(".welcome:not([hidden]), .turn").first).to_be_attached()


def box(page: Any) -> Any:
    """The field to write in."""
    return page.locator("#box textarea")


def card(page: Any, name: str) -> Any:
    """The model with that name in the owner's list."""
    return page.locator(".model-entry").filter(has=page.get_by_role("heading", name=name, exact=True))


def ask(page: Any, text: str) -> None:
    """Write and send, and see it in the conversation."""
    before = page.locator(".turn.reply").count()
    attempt(page, text)
    expect(page.locator(".turn.reply")).to_have_count(before + 1)


def attempt(page: Any, text: str) -> None:
    """Write and press Enter, whatever comes of it."""
    box(page).fill(text)
    box(page).press("Enter")


def reply(page: Any, number: int = -1) -> Any:
    """A reply; the last one unless another is asked for."""
    found = page.locator(".turn.reply")
    return found.last if number == -1 else found.nth(number)


def done(page: Any) -> Any:
    """The last reply, once it is finished and drawn, and the composer can send again."""
    expect(page.locator(".turn.reply").last).to_have_attribute("data-state", "done")
    expect(page.locator(".turn.reply").last.locator(".answer > .open")).to_have_count(0)
    expect(page.locator("#box .submit-button")).to_be_visible()
    return reply(page)


def thought(turn: Any) -> str:
    """The whole reasoning of a finished reply, unfolded."""
    turn.locator(".reasoning").evaluate(
        """(details) => details.open || new Promise((opened) => {
          details.addEventListener("toggle", () => opened(), { once: true });
          details.open = true;
        })"""
    )
    text = turn.locator(".reasoning-text")
    expect(text).not_to_be_empty()
    expect(text).not_to_have_attribute("aria-busy", "true")
    return str(text.text_content())


def set_parameter(page: Any, name: str, value: object) -> None:
    """Type a value into a control of the settings, unfolding those that are used less."""
    page.locator("#more-parameters").evaluate("(details) => (details.open = true)")
    field = page.locator(f"#parameter-{name.replace('_', '-')} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def more(turn: Any) -> Any:
    """The button that opens a turn's menu."""
    return turn.get_by_role("button", name="More", exact=True)
