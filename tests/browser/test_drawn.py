"""What a model writes is drawn on the page as the cases say, and as in an exported file; in pieces it ends the same."""

from typing import Any

from playwright.sync_api import expect

from magistral_ui.chat.events import Answer
from magistral_ui.chat.export.answers import AnswerRenderer
from magistral_ui.engines.scripted import Pause
from magistral_ui.ui.i18n import text
from tests.browser.steps import ask, done, reply, visit
from tests.drawn.cases import MARKS, cases, normal

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

# Milliseconds of the processor alone cannot be told; what looks anew from each mark would take hours.
MANY = """async (marks) => {
  const { parse } = await import(new URL("magistral/markdown.js", document.baseURI));
  let tokens = 0;
  for (const mark of marks) for (const behind of ["", "\\n", " a "]) tokens += parse((mark + behind).repeat(4000), false).length;
  return tokens;
}"""


def test_the_page_draws_every_case_and_the_export_draws_the_same(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("x")]))
    table, answers = cases(), AnswerRenderer(text)
    drawn = [normal(html) for html in page.evaluate(DRAW, [case.text for case in table])]
    wrong = {
        case.text: (found, html) for case, html in zip(table, drawn, strict=True) if (found := case.problems(html))
    }
    assert not wrong
    others = [normal(answers.html(case.text)) for case in table]
    unlike = [(case.text, here, there) for case, here, there in zip(table, drawn, others, strict=True) if here != there]
    assert not unlike


def test_an_answer_that_grows_ends_as_if_it_came_at_once(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("x")]))
    texts = [case.text for case in cases()]
    mixed = ["\n\n".join(texts[at : at + 12]) for at in range(0, len(texts), 12)]
    assert page.evaluate(GROW, texts) == []
    assert page.evaluate(GROW, mixed[:10]) == []


def test_many_marks_do_not_hold_the_page_up(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("x")]))
    assert page.evaluate(MANY, list(MARKS)) > 0


def test_what_a_reader_unfolds_stays_so_while_more_is_written(page: Any, serve: Any) -> None:
    script = [Answer("<details><summary>Why</summary>\n\nOne."), Pause(3), Answer("\n\nTwo.\n\n</details>\n\nThree.")]
    visit(page, serve(script))
    ask(page, "go")
    reply(page).locator(".answer summary").click()
    answer = done(page).locator(".answer")
    expect(answer.locator("details")).to_have_attribute("open", "")
    expect(answer.locator("details")).to_contain_text("Two.")
    expect(answer.locator("details")).not_to_contain_text("Three.")
