"""A turn in a real browser over a scripted engine: asked, thought about, answered, stopped, come back to."""

import re
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer, Failed, Finished, Notice, Reasoning, Reclassified
from magistral_ui.engines.base import Broken, GenerationRequest, Loading, Ready
from tests.browser.steps import ask, attempt, box, done, reply, set_parameter, visit
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine

HEADER = ".reasoning summary"


def thinking(seconds: float, then: str = "The answer is **42**.") -> list[Any]:
    steps: list[Any] = []
    for number in range(int(seconds * 20)):
        steps += [Reasoning(f"Step {number}. "), Pause(0.05)]
    return [*steps, *(part for word in then.split(" ") for part in (Answer(f"{word} "), Pause(0.1)))]


def gated(before: int, after: int = 0) -> tuple[Any, threading.Event]:
    """A script that thinks, waits for the event, thinks on and answers: however slow the machine is, nothing comes too soon."""
    go = threading.Event()

    def script(request: GenerationRequest) -> Any:
        for number in range(before + after):
            if number == before:
                go.wait(60)
            yield Reasoning(f"Step {number}. ")
        go.wait(60)
        yield from (Answer(f"{word} ") for word in ["The", "answer", "is", "**42**."])

    return script, go


def test_reasoning_opens_fills_counts_and_closes_by_itself(page: Any, serve: Any) -> None:
    script, go = gated(60)
    visit(page, serve(script))
    ask(page, "What is the answer?")
    expect(page.locator(".turn.user .said")).to_have_text("What is the answer?")
    details = page.locator(".turn.reply .reasoning")
    expect(details).to_have_attribute("open", "")
    expect(page.locator(HEADER)).to_have_text(re.compile(r"Thinking….*[1-9]\d* tokens"))
    expect(page.locator(HEADER)).to_have_text(re.compile(r"Thinking…\s*[1-9]\d* s"))
    expect(page.locator(".reasoning-text")).to_contain_text("Step 30.")
    go.set()
    expect(details).not_to_have_attribute("open", "")
    expect(page.locator(HEADER)).to_have_text(re.compile(r"Thought for \d+\.\d s\s*60 tokens"))
    done(page)
    expect(reply(page).locator(".answer strong")).to_have_text("42")
    expect(reply(page).locator(".facts")).to_have_text(
        re.compile(r"64 tokens · [\d.]+ tokens/s · first token after [\d.]+ s")
    )


def test_an_answer_that_turns_out_to_be_reasoning_moves_there(page: Any, serve: Any) -> None:
    steps = [
        Answer("Let me *add*. "),
        Pause(1),
        Answer("So 5."),
        Pause(60),
        Reclassified(),
        Pause(60),
        Answer("It is **5**."),
        Pause(60),
    ]
    engine = ScriptedEngine(steps)
    visit(page, serve(engine))
    ask(page, "one")
    shown, thought = reply(page).locator(".answer"), page.locator(".reasoning-text")
    expect(shown).to_contain_text("Let me add. So 5.")
    engine.generations[-1].answer_now()  # ends the pause
    expect(shown).not_to_contain_text("So 5.")
    expect(page.locator(HEADER)).to_be_visible()
    engine.generations[-1].answer_now()
    expect(shown.locator("strong")).to_have_text("5")
    page.locator(HEADER).click()
    expect(thought).to_have_text("Let me *add*. So 5.")
    page.reload()
    expect(reply(page).locator(".answer strong")).to_have_text("5")
    engine.generations[-1].answer_now()
    done(page)
    expect(reply(page).locator(".answer")).to_have_text("It is 5.")
    expect(reply(page).locator(".answer")).to_have_count(1)


def test_what_the_reader_opens_by_hand_stays_open(page: Any, serve: Any) -> None:
    script, go = gated(20, 20)
    visit(page, serve(script))
    ask(page, "one")
    details = page.locator(".turn.reply .reasoning")
    expect(details).to_have_attribute("open", "")
    page.locator(HEADER).click()
    expect(details).not_to_have_attribute("open", "")
    page.locator(HEADER).press("Enter")
    expect(details).to_have_attribute("open", "")
    go.set()
    done(page)
    expect(details).to_have_attribute("open", "")
    text = page.locator(".reasoning-text").text_content()
    assert text == "".join(f"Step {number}. " for number in range(40))


def test_reasoning_that_was_closed_all_the_time_is_whole_when_opened(page: Any, serve: Any) -> None:
    script, go = gated(1, 29)
    visit(page, serve(script))
    ask(page, "one")
    details = page.locator(".turn.reply .reasoning")
    expect(details).to_have_attribute("open", "")
    page.locator(HEADER).click()
    expect(details).not_to_have_attribute("open", "")
    go.set()
    done(page)
    assert page.locator(".reasoning-text").text_content() != "".join(f"Step {number}. " for number in range(30))
    page.locator(HEADER).click()
    expect(page.locator(".reasoning-text")).to_contain_text("Step 29.")
    assert page.locator(".reasoning-text").text_content() == "".join(f"Step {number}. " for number in range(30))


def test_nothing_is_rebuilt_when_the_turn_ends(page: Any, serve: Any) -> None:
    visit(page, serve(thinking(1)))
    ask(page, "one")
    expect(reply(page).locator(".answer")).to_be_visible()
    page.evaluate("document.querySelector('.turn.reply').mine = document.querySelector('.reasoning').mine = true")
    done(page)
    assert page.evaluate("document.querySelector('.turn.reply').mine && document.querySelector('.reasoning').mine")
    ask(page, "two")
    done(page)
    assert page.locator(".turn").count() == 4
    assert page.evaluate("document.querySelector('.turn.reply').mine") is True


def test_stop_ends_it_and_keeps_what_was_written(page: Any, serve: Any) -> None:
    visit(page, serve([Reasoning("hm"), Answer("First words"), Pause(60), Answer(" too late")]))
    ask(page, "one")
    expect(reply(page).locator(".answer")).to_contain_text("First words")
    page.locator("#box .stop-button").click()
    done(page)
    expect(reply(page)).to_contain_text("Stopped.")
    expect(reply(page)).not_to_contain_text("too late")


def test_answer_now_ends_the_reasoning(page: Any, serve: Any) -> None:
    visit(page, serve([Reasoning("hm"), Pause(60), Reasoning("never"), Notice("answered_now"), Answer("Well then.")]))
    ask(page, "one")
    page.locator(".answer-now").click()
    done(page)
    expect(reply(page).locator(".answer")).to_have_text("Well then.")
    expect(reply(page)).to_contain_text("You ended the thinking early")


def test_a_reload_and_a_second_tab_take_up_the_running_reply(page: Any, context: Any, serve: Any) -> None:
    url = serve([*thinking(2), Pause(120), Answer("too late")])
    visit(page, url)
    ask(page, "one")
    expect(page.locator(".reasoning-text")).to_contain_text("Step 5.")
    page.reload()
    expect(page.locator(".turn.user .said")).to_have_text("one")
    second = context.new_page()
    second.goto(url)
    whole = "".join(f"Step {number}. " for number in range(40))
    for tab in (page, second):
        expect(reply(tab).locator(".answer")).to_have_text("The answer is 42.")
        tab.locator(HEADER).click()
        expect(tab.locator(".reasoning-text")).to_have_text(whole.strip())
    second.locator("#box .stop-button").click()
    for tab in (page, second):
        expect(done(tab)).to_contain_text("Stopped.")
        assert tab.locator(".reasoning-text").text_content() == whole


def test_another_visitor_sees_nothing_of_it(page: Any, browser: Any, serve: Any) -> None:
    url = serve([Answer("a secret")])
    visit(page, url)
    ask(page, "one")
    done(page)
    stranger = browser.new_context()
    tab = stranger.new_page()
    visit(tab, url)
    expect(tab.locator(".welcome")).to_be_visible()
    assert tab.locator(".turn").count() == 0
    stranger.close()


def test_a_browser_whose_streams_cannot_be_iterated_reads_along(page: Any, serve: Any) -> None:
    page.add_init_script(
        "for (const name of [Symbol.asyncIterator, 'values']) delete ReadableStream.prototype[name];"  # as in Safari
    )
    visit(page, serve([Reasoning("Let me see. "), Pause(60), Answer("Ten.")]))
    ask(page, "Sum?")
    expect(reply(page).locator(".reasoning-text")).to_contain_text("Let me see.")


def test_an_answer_is_drawn_when_the_line_was_down_for_what_draws_it(page: Any, context: Any, serve: Any) -> None:
    failed: list[str] = []

    def cut(route: Any) -> None:
        failed.append(route.request.url)
        route.abort() if len(failed) < 2 else route.continue_()

    context.route("**/markdown.js*", cut)
    visit(page, serve([Answer("It is *ten*.")]))
    ask(page, "Sum?")
    expect(done(page).locator(".answer em")).to_have_text("ten")
    assert len(failed) == 2
    assert failed[0] != failed[1]


def test_regenerate_and_new_chat(page: Any, serve: Any) -> None:
    visit(page, serve(lambda request: [Answer(f"seed {request.params.seed}")]))
    ask(page, "one")
    first = done(page).locator(".answer").text_content()
    reply(page).get_by_role("button", name="Regenerate").click()
    expect(reply(page).locator(".answer")).not_to_have_text(first)
    done(page)
    assert page.locator(".turn").count() == 2
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator(".welcome")).to_be_visible()


def test_two_tabs_show_two_conversations_and_a_new_one_does_not_wait_for_the_old(
    page: Any, context: Any, serve: Any
) -> None:
    def script(request: GenerationRequest) -> Script:
        asked = request.prompt.turns[-1]
        return [Answer("First words"), Pause(60)] if getattr(asked, "text", "") == "slow" else [Answer("quick")]

    url = serve(script)
    visit(page, url)
    ask(page, "slow")
    expect(reply(page).locator(".answer")).to_have_text("First words")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    ask(page, "fast")
    expect(done(page).locator(".answer")).to_have_text("quick")
    second = context.new_page()
    second.goto(url)
    expect(second.locator(".turn.user .said")).to_have_text("fast")
    second.get_by_role("button", name="New chat").click()
    expect(second.locator(".turn")).to_have_count(0)
    ask(second, "third")
    for tab, said in ((page, "fast"), (second, "third"), (page, "fast")):
        tab.reload()
        expect(tab.locator(".turn.user .said")).to_have_text(said)


def test_copy_gives_the_markdown_of_the_answer(page: Any, context: Any, serve: Any) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, serve([Answer("**bold**\n\n```python\nprint(1)\n```")]))
    ask(page, "one")
    done(page).locator(".foot").get_by_role("button", name="Copy").click()
    expect(reply(page).locator(".foot")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "**bold**\n\n```python\nprint(1)\n```"
    reply(page).locator(".code-head button").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === 'print(1)\\n')")


def test_why_a_reply_ended_and_what_there_is_to_tell(page: Any, serve: Any) -> None:
    def script(request: GenerationRequest) -> Script:
        if len(request.prompt.turns) == 1:
            return [*[Reasoning("a ")] * 5, Finished("length")]
        return [Reasoning("Let me"), Failed("out_of_memory")]

    visit(page, serve(script))
    ask(page, "one")
    expect(done(page)).to_contain_text("Stopped at the limit of 5 tokens")
    expect(reply(page)).to_contain_text("No answer: the reply ended")
    expect(reply(page).locator(".reasoning")).to_have_attribute("open", "")
    ask(page, "two")
    expect(reply(page, 1)).to_contain_text("The device is out of memory.")
    done(page)
    expect(box(page)).to_be_enabled()


def test_a_full_context_is_told_in_one_sentence_and_nothing_is_advised_that_cannot_be_done(
    page: Any, serve: Any
) -> None:
    def script(request: GenerationRequest) -> Script:
        asked = getattr(request.prompt.turns[-1], "text", "")
        begun = [Notice("max_tokens_lowered", {"limit": 7})] if asked == "full" else []
        return [*begun, Answer("Well, "), Finished("length")]

    visit(page, serve(script))
    notes = reply(page).locator(".notes p")
    ask(page, "full")
    done(page)
    expect(notes).to_have_count(1)
    expect(notes).to_contain_text("only 7 tokens were left for this reply")
    set_parameter(page, "max_tokens", 1_000_000)  # as many as there may be
    ask(page, "most")
    done(page)
    expect(notes).to_have_text("Stopped at the token limit.")


def test_a_junk_file_gets_a_sentence_and_nothing_is_lost(page: Any, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "junk.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "good.png")
    visit(page, serve([Answer("I see.")]))
    box(page).fill("Look at this")
    page.locator("#box input[type=file]").set_input_files([tmp_path / "junk.png", tmp_path / "good.png"])
    expect(page.locator(".refusals li")).to_have_text("junk.png — not a readable image")
    assert box(page).input_value() == "Look at this"
    assert page.locator(".turn").count() == 0
    expect(page.locator("#box img").first).to_be_visible()
    box(page).press("Enter")
    done(page)
    expect(page.locator(".turn.user img")).to_have_attribute("alt", "Image 1: good.png, 40 × 30")
    expect(page.locator(".refusals")).to_be_hidden()
    assert box(page).input_value() == ""


def test_sending_twice_says_so_and_keeps_the_words(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("First"), Pause(60)]))
    ask(page, "one")
    expect(reply(page).locator(".answer")).to_contain_text("First")
    attempt(page, "two")
    expect(page.locator("#turns [role=alert]")).to_contain_text("still being written")
    assert box(page).input_value() == "two"
    assert page.locator(".turn.user").count() == 1
    page.locator("#box .stop-button").click()
    done(page)
    assert box(page).input_value() == "two"


def test_the_page_is_there_before_the_model_and_opens_when_it_is_ready(page: Any, serve: Any) -> None:
    engine = ScriptedEngine([Answer("yes")], status=Loading("reading", 3_000_000_000, 48_000_000_000, 90))
    page.goto(serve(engine))
    banner = page.locator("#model-banner")
    expect(banner).to_contain_text("3 GB of 48 GB")
    expect(banner).to_contain_text("90 seconds left")
    expect(box(page)).to_be_disabled()
    expect(box(page)).to_have_attribute("placeholder", re.compile("loading"))
    engine.set_status(Broken("model_not_found", {"model": "nowhere"}))
    expect(banner.get_by_role("alert")).to_contain_text("There is no model “nowhere”")
    banner.get_by_role("button", name="Try again").click()
    expect(banner).to_contain_text("Starting")
    engine.set_status(Ready(INFO))
    expect(box(page)).to_be_enabled()
    expect(banner).to_be_empty()
    expect(page.locator("#model")).to_contain_text("Demo model")
    page.locator(".example").first.click()
    expect(done(page).locator(".answer")).to_have_text("yes")


def test_a_new_line_is_written_and_an_empty_message_is_not_sent(page: Any, serve: Any) -> None:
    engine = ScriptedEngine([Answer("yes")])
    visit(page, serve(engine))
    page.evaluate("document.querySelector('#box textarea').mine = true")
    for _ in range(3):
        box(page).press("Enter")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        page.keyboard.press("Backspace")
    page.keyboard.type("one")  # into the same field, at once: nothing of it is lost
    assert page.evaluate("document.querySelector('#box textarea').mine")
    box(page).press("Shift+Enter")
    box(page).type("two")
    assert box(page).input_value() == "one\ntwo"
    box(page).press("Enter")
    done(page)
    assert len(engine.requests) == 1


def test_the_screen_reader_hears_thinking_and_then_the_answer_only(page: Any, serve: Any) -> None:
    visit(page, serve(thinking(1)))
    ask(page, "one")
    spoken = page.locator("#turns [role=status]")
    expect(spoken).to_have_text("Thinking…")
    done(page)
    expect(spoken).to_have_text("The answer is **42**.")
    assert page.locator("[aria-live] .reasoning, [role=log] .reasoning, [role=status] .reasoning").count() == 0


def test_the_settings_are_a_drawer_on_a_phone(page: Any, serve: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    visit(page, serve([Answer("yes")]))
    settings = page.locator("#settings")
    expect(settings).to_be_hidden()
    toggle = page.locator("#settings-toggle")
    expect(toggle).to_have_attribute("aria-expanded", "false")
    toggle.click()
    expect(settings).to_be_visible()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(settings).to_be_hidden()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


def test_a_page_at_rest_rests(page: Any, serve: Any) -> None:
    page.add_init_script(
        """{
          window.frames_asked = 0;
          const ask = window.requestAnimationFrame.bind(window);
          window.requestAnimationFrame = (job) => { window.frames_asked += 1; return ask(job); };
        }"""
    )
    visit(page, serve([Answer("yes")]))
    ask(page, "Well?")
    done(page)
    page.wait_for_function("window.frames_asked > 0")
    asked = 0
    for _ in range(20):  # Gradio's last animations
        before, asked = asked, page.evaluate("window.frames_asked")
        if asked == before:
            break
        page.wait_for_timeout(1000)
    assert asked == before
