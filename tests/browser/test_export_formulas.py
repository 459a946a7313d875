"""An exported page reads formulas by the same rules as the page itself."""

from typing import Any

from markdown_it import MarkdownIt

from magistral_ui.chat.events import Answer
from magistral_ui.export.latex_delimiters import latex_marks
from tests.browser.steps import visit
from tests.browser.test_markdown import HOSTILE, RICH

TEXTS = [
    RICH,
    HOSTILE,
    "It costs $5 and $10, or $5$ and $ 5$, $5 $, \\$5$ and $a\\$b$",
    "\\(a\\) \\\\(b\\) \\(open",
    "\\[a\\] behind\n\n\\[\na\n\\]\n\n\\[ open\n\nb",
    "$$a$$ b $$c\nd$$\n\n$$\na\n\nb\n$$\n\n$$ open",
    "- $$a$$\n- $$\n  b\n  $$\n  \\boxed{1}\n> \\[\n> c\n> \\]\n\n    $$code$$",
    "\\boxed{a{b}c} \\boxed{open \\boxed{\\{} `$a$` ```\n$a$\n``` $x$2 $$ $$",
    "| $a$ | \\(b\\) |\n|---|---|\n| $|x|$ | $$c$$ |",
]
READ = """async (texts) => {
  const { parse } = await import(new URL("magistral/markdown.js", document.baseURI));
  const formulas = (tokens) => tokens.flatMap((token) => [
    ...(token.type === "math" ? [[token.content, token.meta.display]] : []), ...formulas(token.children ?? []),
  ]);
  return texts.map((text) => formulas(parse(text, false)));
}"""


def read(answer: str) -> list[list[Any]]:
    """The formulas that the export finds in `answer`, in their order, and whether each is for a display."""
    found: list[list[Any]] = []
    markdown = MarkdownIt("js-default", {"html": False, "linkify": False, "typographer": False})
    latex_marks(markdown, lambda latex, display: found.append([latex, display]) or "")
    markdown.render(answer)
    return found


def test_the_same_formulas_are_found(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("x")]))
    assert len(read(RICH)) == 5
    assert page.evaluate(READ, TEXTS) == [read(each) for each in TEXTS]
