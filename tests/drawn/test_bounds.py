"""No number of marks makes an answer take long to read, and names of footnotes are each answer's own."""

import re
import subprocess
import sys

import pytest

from magistral_ui.chat.export.answers import AnswerRenderer
from magistral_ui.ui.i18n import text
from tests.drawn.cases import MARKS

MANY = 3_000
MINUTES = 5
"""What looks anew from each mark to the end would take longer by far, also on an idle machine; now it is seconds."""
READ = f"""
import sys
from magistral_ui.chat.export.answers import AnswerRenderer
answers = AnswerRenderer(lambda key, /, **values: key)
for mark in sys.stdin.read().split("\\0"):
    for behind in ("", "\\n", " a ", "](x)"):
        answers._markdown.render((mark + behind) * {MANY}, {{"docId": "1"}})
        answers._markdown.render("[^a]: x\\n\\n- " + (mark + behind) * {MANY}, {{"docId": "1"}})
"""


def test_many_marks_are_read_in_bounded_time() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", READ],
        input="\0".join(MARKS),
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_footnotes_of_two_answers_have_different_names() -> None:
    answers = AnswerRenderer(text)
    first, second = (set(re.findall(r' id="([^"]+)"', answers.html("a[^1] b[^1]\n\n[^1]: c"))) for _ in range(2))
    assert len(first) == len(second) == 3
    assert not first & second


@pytest.mark.parametrize("mark", ["<div>", "<details>", "<b>", "- <ul><li>"])
def test_what_stands_within_each_other_is_bounded(mark: str) -> None:
    assert "x" in AnswerRenderer(text).html(mark * 3_000 + "x")


def test_numbers_of_equations_run_through_an_answer_and_begin_anew_in_the_next() -> None:
    answers = AnswerRenderer(text)
    equation = "\\begin{equation}\nx\n\\end{equation}"
    both = answers.html(f"{equation}\n\n{equation}")
    assert "(1)" in both
    assert "(2)" in both
    assert "(1)" in answers.html(equation)
