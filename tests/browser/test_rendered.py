"""What a model writes is drawn on the page as the cases say, and as in an exported file; in pieces it ends the same."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer
from magistral_ui.export.answer_html import AnswerRenderer
from magistral_ui.i18n.texts import text
from tests.browser.conftest import visitor
from tests.browser.pages import Pages, serving
from tests.browser.steps import ask, done, reply, visit
from tests.fuzz.marks import MARKS as MARKS_TO_FUZZ
from tests.rendered.cases import MARKS, cases, normal
from tests.rendered.ordinary import ordinary
from tests.scripted_engine import Pause

DRAW = """async (texts) => {
  const { parse, render } = await import(new URL("magistral/markdown.js", document.baseURI));
  return texts.map((text) => {
    const box = document.createElement("div");
    box.append(render(parse(text, false), "a1"));
    return box.innerHTML;
  });
}"""
# As it grows, letter by letter: what stood finished must not change, and nothing is lost.
GROW = """async (texts) => {
  const { AnswerView } = await import(new URL("magistral/answer.js", document.baseURI));
  const { parse, render } = await import(new URL("magistral/markdown.js", document.baseURI));
  const wrong = [];
  for (const text of texts) {
    const view = new AnswerView();
    let kept = [];
    for (let at = 0; at < text.length; at += 3) {
      view.add(text.slice(at, at + 3));
      await view.draw();
      const finished = [...view.element.children].slice(0, -1).map((each) => each.outerHTML);
      if (kept.some((each, index) => finished[index] !== each)) wrong.push(["changed", text]);
      kept = finished;
    }
    view.complete(text);
    await view.draw();
    const box = document.createElement("div");
    box.append(render(parse(text, false), view.name));
    if (view.element.innerHTML !== box.innerHTML) wrong.push([view.element.innerHTML, box.innerHTML]);
  }
  return wrong;
}"""

# At once, and in pieces; what was read, in characters, tells the work. Names of footnotes are each view's own.
WHOLE = """async ([text, pieces]) => {
  const { AnswerView } = await import(new URL("magistral/answer.js", document.baseURI));
  let read = 0;
  class View extends AnswerView {
    ahead() {
      const text = super.ahead();
      read += text.length;
      return text;
    }
  }
  const drawn = [];
  for (const step of [text.length, Math.ceil(text.length / pieces)]) {
    read = 0;
    const view = new View();
    for (let at = 0; step < text.length && at < text.length; at += step) {
      view.add(text.slice(at, at + step));
      await view.draw();
    }
    view.complete(text);
    while (!view.done) {
      await view.draw();
      await new Promise((resolve) => setTimeout(resolve));
    }
    const html = view.element.innerHTML.replaceAll(view.name, "");
    const plain = view.element.querySelectorAll(".plain").length;
    drawn.push({ html, text: view.element.textContent, plain, read: read / text.length });
  }
  const [{ html, ...once }, { html: grown, ...often }] = drawn;
  return [once, often, html === grown];
}"""
PIECES = """async (texts) => {
  const { parse } = await import(new URL("magistral/markdown.js", document.baseURI));
  return texts.map((text) => parse(text, false).reduce((sum, { children }) => sum + 1 + (children?.length ?? 0), 0));
}"""
MOST_PIECES = 60_000
"""Pieces that a text of 200,000 characters may become, with their ends; it would be hundreds of thousands."""
MOST_READ = 25
"""How often a character may be read while a text comes in 300 pieces; each time would be 150."""

# Milliseconds of the processor alone cannot be told; what looks anew from each mark would take hours.
MANY = """async (marks) => {
  const { parse } = await import(new URL("magistral/markdown.js", document.baseURI));
  let tokens = 0;
  for (const mark of marks) for (const behind of ["", "\\n", " a "]) tokens += parse((mark + behind).repeat(4000), false).length;
  return tokens;
}"""


@pytest.fixture(scope="module")
def scripts(browser: Any, pages: Pages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page whose scripts draw the texts; nothing is said on it, so that one is enough for all of them."""
    with visitor(browser) as context, serving(tmp_path_factory.mktemp("scripts"), pages) as serve:
        page = context.new_page()
        visit(page, serve([Answer("x")]))
        yield page


def test_the_page_draws_every_case_and_the_export_draws_the_same(scripts: Any) -> None:
    table, answers = cases(), AnswerRenderer(text)
    drawn = [normal(html) for html in scripts.evaluate(DRAW, [case.text for case in table])]
    wrong = {
        case.text: (found, html) for case, html in zip(table, drawn, strict=True) if (found := case.problems(html))
    }
    assert not wrong
    others = [normal(answers.html(case.text)) for case in table]
    unlike = [(case.text, here, there) for case, here, there in zip(table, drawn, others, strict=True) if here != there]
    assert not unlike


def test_an_answer_that_grows_ends_as_if_it_came_at_once(scripts: Any) -> None:
    texts = [case.text for case in cases()]
    mixed = ["\n\n".join(texts[at : at + 12]) for at in range(0, len(texts), 12)]
    assert scripts.evaluate(GROW, texts) == []
    assert scripts.evaluate(GROW, mixed[:10]) == []


def test_many_marks_do_not_hold_the_page_up(scripts: Any) -> None:
    assert scripts.evaluate(MANY, list(MARKS)) > 0


def test_an_ordinary_text_is_drawn_to_its_end_at_once_or_in_pieces(scripts: Any) -> None:
    for name, written in ordinary().items():
        once, often, same = scripts.evaluate(WHOLE, [written, 12])
        assert (once["plain"], often["plain"], same) == (0, 0, True), name


@pytest.mark.parametrize("unit", ["word *a* ", "- word\n", "| word | b |\n", "> word\n>\n", "word\n\n", "[word](b) "])
def test_what_is_too_much_is_the_same_at_once_or_in_pieces_and_no_word_is_lost(scripts: Any, unit: str) -> None:
    head = "before\n\n" + ("| a | b |\n|---|---|\n" if unit.startswith("|") else "")
    once, often, same = scripts.evaluate(WHOLE, [f"{head}{unit * 8_000}\n\nbehind", 12])
    assert same
    assert once["text"] == often["text"]
    assert once["text"].count("word") == 8_000


def test_pairs_of_marks_become_so_many_pieces_at_most_on_the_page(scripts: Any) -> None:
    source = random.Random(1)
    pairs = [source.choice(MARKS_TO_FUZZ) + source.choice(MARKS_TO_FUZZ) for _ in range(40)]
    found = scripts.evaluate(PIECES, [(pair * 20_000)[:200_000] for pair in pairs])
    assert max(found) < MOST_PIECES, pairs[found.index(max(found))]


@pytest.mark.parametrize("line", ["- word\n", "- word {}\n", "> word {} $x$\n"])
def test_an_open_block_that_grows_is_not_read_anew_with_each_piece(scripts: Any, line: str) -> None:
    _, often, _ = scripts.evaluate(WHOLE, ["".join(line.format(at) for at in range(3_000)), 300])
    assert often["read"] < MOST_READ


def test_what_a_reader_unfolds_stays_so_while_more_is_written(page: Any, serve: Any) -> None:
    script = [Answer("<details><summary>Why</summary>\n\nOne."), Pause(3), Answer("\n\nTwo.\n\n</details>\n\nThree.")]
    visit(page, serve(script))
    ask(page, "go")
    reply(page).locator(".answer summary").click()
    answer = done(page).locator(".answer")
    expect(answer.locator("details")).to_have_attribute("open", "")
    expect(answer.locator("details")).to_contain_text("Two.")
    expect(answer.locator("details")).not_to_contain_text("Three.")
