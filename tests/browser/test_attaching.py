"""Pictures dropped, pasted and picked in a real browser, and a message that is held for as long as it cannot go."""

import base64
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer
from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Measure, Ready
from magistral_ui.models.cards import MAGISTRAL_1_1
from magistral_ui.sessions.limits import Limits
from tests.browser.steps import attempt, box, done, reply, visit
from tests.chat import heic
from tests.scripted_engine import INFO, ScriptedEngine

DROP = """([where, kinds, files, words]) => {
  const data = new DataTransfer();
  for (const [name, base] of files) data.items.add(new File([Uint8Array.from(atob(base), (c) => c.charCodeAt(0))], name));
  if (words) data.setData("text/plain", words);
  const target = document.querySelector(where);
  const tell = (kind) => !target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  clearInterval(window.held);
  const taken = kinds.map(tell);
  if (kinds.at(-1) === "dragover") window.held = setInterval(tell, 200, "dragover");
  return taken;
}"""
"""Drags `files` or `words` over the element `where`, and holds them there; whether each event was taken from the browser."""
PASTE = """([where, files]) => {
  const data = new DataTransfer();
  for (const [name, base] of files) data.items.add(new File([Uint8Array.from(atob(base), (c) => c.charCodeAt(0))], name));
  const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  document.querySelector(where).dispatchEvent(event);
}"""


def encoded(format: str = "PNG", side: int = 40) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, format)
    return out.getvalue()


def files(**contents: bytes) -> list[list[str]]:
    return [[name.replace("__", "."), base64.b64encode(data).decode()] for name, data in contents.items()]


def drag(page: Any, where: str, kinds: list[str], files: Any = (), words: str = "") -> Any:
    return page.evaluate(DROP, [where, kinds, list(files), words])


def drop(page: Any, where: str, files: Any) -> None:
    assert drag(page, where, ["dragenter", "dragover", "drop"], files) == [True, True, True]


def ready(page: Any, url: str) -> None:
    visit(page, url)
    expect(page.locator(".refusals")).to_be_attached()


def attached(page: Any, count: int) -> Any:
    found = page.locator("#box .thumbnail-wrapper")
    expect(found).to_have_count(count)
    expect(page.locator("#box .loader")).to_have_count(0)
    return found


def refused(page: Any) -> Any:
    return page.locator(".refusals li")


def test_images_dropped_anywhere_are_attached_and_what_is_none_is_named_at_once(page: Any, serve: Any) -> None:
    engine = ScriptedEngine([Answer("I see.")])
    ready(page, serve(engine))
    zone = page.locator(".drop-zone")
    expect(zone).to_be_hidden()
    drag(page, "#turns", ["dragenter", "dragover"], files(a__png=encoded()))
    expect(zone).to_be_visible()
    expect(zone).to_have_text("Drop images here to add them to your message")
    drag(page, "#turns", ["dragleave"])
    expect(zone).to_be_hidden()
    for number, where in enumerate(("#turns", "#topbar", "#settings", "body"), 1):
        drop(page, where, files(**{f"{number}__png": encoded(side=30 + number)}))
        attached(page, number)
    expect(zone).to_be_hidden()
    bad = {"draw__svg": b"<svg/>", "empty__png": b"", "scan__png": b"%PDF-1.7", "half (1)__jpg": encoded("JPEG")[:500]}
    box(page).fill("Look")
    drop(page, "#turns", files(**bad, IMG_1__HEIC=heic.PHOTO, good__bmp=encoded("BMP")))
    expect(refused(page)).to_have_count(4)
    expect(page.locator(".refusals")).to_contain_text("4 files weren’t added:")
    for name, why in (
        ("draw.svg", "not a readable image"),
        ("empty.png", "empty file"),
        ("scan.png", "not a readable image"),
        ("half (1).jpg", "damaged"),
    ):
        expect(refused(page).filter(has_text=name)).to_contain_text(why)
    attached(page, 6)
    page.wait_for_function(
        "[...document.querySelectorAll('#box .thumbnail-wrapper img')].every((each) => each.naturalWidth)"
    )
    assert box(page).input_value() == "Look"
    box(page).press("Enter")
    done(page)
    expect(page.locator(".turn.user img")).to_have_count(6)
    assert [each.name for each in engine.requests[0].prompt.images][4:] == ["IMG_1.HEIC", "good.bmp"]
    expect(refused(page)).to_have_count(0)


def test_a_damaged_image_alone_is_named_and_goes(page: Any, serve: Any) -> None:
    ready(page, serve([Answer("yes")]))
    drop(page, "#turns", files(half__jpg=encoded("JPEG")[:500]))
    expect(refused(page)).to_have_text("half.jpg — damaged or incomplete")
    attached(page, 0)
    expect(refused(page)).to_have_count(1)
    attempt(page, "Never mind")
    done(page)
    expect(refused(page)).to_have_count(0)


def test_words_and_pieces_of_the_page_are_no_images(page: Any, serve: Any) -> None:
    ready(page, serve([Answer("yes")]))
    zone, notice = page.locator(".drop-zone"), page.locator(".refusals")
    assert drag(page, "#turns", ["dragover", "drop"], words="https://example.org/") == [True, True]
    expect(notice).to_contain_text("Only images can be added.")
    notice.get_by_role("button", name="Dismiss").click()
    expect(notice).to_be_hidden()
    taken = drag(page, "#box textarea", ["dragover", "drop"], words="some words")
    assert taken == [False, False]  # the field takes them
    drag(page, "#turns", ["dragstart", "dragenter", "dragover"], files(a__png=encoded()))
    expect(zone).to_be_hidden()
    drag(page, "#turns", ["drop", "dragend"], files(a__png=encoded()))
    drag(page, "#turns", ["dragenter", "dragover"], files(a__png=encoded()))
    expect(zone).to_be_visible()
    attached(page, 0)


def test_images_are_pasted_wherever_no_other_field_has_the_focus(page: Any, serve: Any) -> None:
    ready(page, serve([Answer("yes")]))
    page.evaluate(PASTE, ["body", files(a__png=encoded())])
    attached(page, 1)
    page.evaluate(PASTE, ["#box textarea", files(b__png=encoded(side=41))])
    attached(page, 2)
    page.evaluate(PASTE, ["#parameter-max-tokens input[type=number]", files(c__png=encoded(side=42))])
    page.evaluate(PASTE, ["body", files(words__txt=b"words")])
    expect(refused(page)).to_have_text("words.txt — not a readable image")
    attached(page, 2)


def test_a_message_has_as_many_images_as_it_may(page: Any, serve: Any) -> None:
    ready(page, serve([Answer("yes")], Limits(pictures=2, picture_bytes=2_000_000)))
    many = {f"{number}__png": encoded(side=30 + number) for number in range(3)}
    drop(page, "#turns", files(big__bmp=encoded("BMP", 1_000), **many))
    attached(page, 2)
    expect(refused(page)).to_have_text(["big.bmp — larger than 1 MB", "2.png — at most 2 per message"])


def test_a_model_that_sees_nothing_takes_no_images(page: Any, serve: Any) -> None:
    ready(page, serve([Answer("yes")], card=MAGISTRAL_1_1))
    clip = page.locator("#box .upload-button")
    expect(clip).to_be_disabled()
    expect(clip).to_have_attribute("title", "This model doesn’t support images.")
    drag(page, "#turns", ["dragenter", "dragover"], files(a__png=encoded()))
    expect(page.locator(".drop-zone")).to_have_text("This model doesn’t support images.")
    drag(page, "#turns", ["drop"], files(a__png=encoded()))
    expect(page.locator(".refusals")).to_contain_text("This model doesn’t support images.")
    attached(page, 0)
    assert page.locator(".example").all_inner_texts()[0] != "What is 487 + 265?"  # that is for the demo model


class Slow(ScriptedEngine):
    """An engine that counts only when it is told to; 200 tokens fit."""

    def __init__(self) -> None:
        super().__init__([Answer("yes")], status=Ready(replace(INFO, context_length=200)))
        self.counts = threading.Event()

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        assert self.counts.wait(60)
        return super().measure(prompt, visitor)


@pytest.fixture
def slow() -> Iterator[Slow]:
    """The engine; whoever waits for its count is let go at the end."""
    engine = Slow()
    engine.counts.set()
    yield engine
    engine.counts.set()


def test_a_message_that_does_not_fit_is_not_sent_and_nothing_is_said_of_an_empty_box(
    page: Any, serve: Any, slow: Slow
) -> None:
    visit(page, serve(slow))
    send, fit = page.locator("#box .submit-button"), page.locator(".fit")
    long = "word " * 300
    box(page).fill(long)
    expect(fit).to_contain_text("Too long")
    expect(send).to_be_disabled()
    box(page).press("Enter")
    expect(page.locator(".held")).to_contain_text("Too long")
    assert box(page).input_value() == long
    box(page).fill("")
    expect(fit).to_be_hidden()
    expect(send).to_be_enabled()
    attempt(page, long)  # before anything is counted
    expect(fit).to_be_visible()
    expect(send).to_be_disabled()
    assert box(page).input_value() == long
    box(page).fill("short")
    expect(send).to_be_enabled()
    box(page).press("Enter")
    done(page)
    assert [getattr(each.prompt.turns[-1], "text", "") for each in slow.requests] == ["short"]
    assert page.locator(".turn").count() == 2


def test_a_message_over_a_limit_is_held(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("yes")], Limits(text_length=20)))
    box(page).fill("x" * 21)
    expect(page.locator(".fit")).to_contain_text("the limit is 20")
    expect(page.locator("#box .submit-button")).to_be_disabled()
    box(page).fill("x" * 20)
    expect(page.locator(".fit")).to_be_hidden()
    box(page).press("Enter")
    done(page)


def test_a_message_waits_for_its_count_and_then_goes_by_itself(page: Any, serve: Any, slow: Slow) -> None:
    visit(page, serve(slow))
    expect(page.locator("#meter .meter-count")).to_be_visible()
    slow.counts.clear()
    nearly = "w " * 60 + "x" * 200  # more bytes than fit, but fewer tokens
    box(page).fill(nearly)
    box(page).press("Enter")
    expect(page.locator(".held")).to_have_text("Your message will be sent shortly.")
    assert box(page).input_value() == nearly
    slow.counts.set()
    done(page)
    assert box(page).input_value() == ""
    assert len(slow.requests) == 1


def test_a_message_waits_for_its_images(page: Any, context: Any, serve: Any) -> None:
    engine, uploads = ScriptedEngine([Answer("I see.")]), list[Any]()
    context.route("**/gradio_api/upload?*", lambda route: uploads.append(route))
    ready(page, serve(engine))
    drop(page, "#turns", files(a__png=encoded()))
    expect(page.locator("#box .loader")).to_be_visible()
    attempt(page, "Look")
    expect(page.locator(".held")).to_have_text("Your message will be sent shortly.")
    assert page.locator(".turn").count() == 0
    uploads[0].continue_()
    done(page)
    expect(reply(page).locator(".answer")).to_have_text("I see.")
    assert len(engine.requests[0].prompt.images) == 1
