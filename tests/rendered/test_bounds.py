"""No number of marks makes an answer take long to read, and names of footnotes are each answer's own."""

import random
import re
import subprocess
import sys

import pytest

from magistral_ui.export.answer_html import AnswerRenderer
from magistral_ui.export.bounds import PREFIX_LENGTH, is_readable
from magistral_ui.export.markdown import contained
from magistral_ui.i18n.texts import text
from tests.fuzz.__main__ import NoFormulas
from tests.fuzz.marks import MARKS as MARKS_TO_FUZZ
from tests.rendered.cases import MARKS
from tests.rendered.ordinary import ordinary

MANY = 2_000
MINUTES = 5
"""What looks anew from each mark to the end would take longer by far, also on an idle machine; now it is seconds."""
READ = f"""
import sys
from magistral_ui.export.answer_html import AnswerRenderer
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


WORDS = re.compile("<[^>]*>")
WORK = 30_000
"""Pieces that a text of 40,000 characters and more may become; in all phases together, with their ends."""


def _pieces(text_: str) -> int:
    tokens = AnswerRenderer(text)._markdown.parse(text_, {"docId": "1"})
    return len(tokens) + sum(len(token.children or ()) for token in tokens)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_marks_become_so_many_pieces_at_most(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(15):
        pair = source.choice(MARKS_TO_FUZZ) + source.choice(MARKS_TO_FUZZ)
        assert _pieces((pair * 20_000)[:200_000]) < WORK, pair


@pytest.mark.parametrize(
    "unit", ["word *a* ", "- word\n", "| word | b |\n", "> word\n>\n", "word\n\n", "[word](b) ", "`word` "]
)
def test_what_is_too_much_is_shown_as_it_was_written_and_no_word_is_lost(unit: str) -> None:
    head = "| a | b |\n|---|---|\n" if unit.startswith("|") else ""
    drawn = AnswerRenderer(text).html(head + unit * 8_000)
    assert '<div class="plain">' in drawn
    assert WORDS.sub("", drawn).count("word") == 8_000


@pytest.mark.parametrize("name", ordinary())
def test_an_ordinary_text_is_drawn_to_its_end_however_long_it_is(name: str) -> None:
    written = ordinary()[name]
    assert '<div class="plain">' not in AnswerRenderer(text, None, NoFormulas()).html(written)
    assert not contained(written).startswith("```text\n")


@pytest.mark.parametrize("unit", ["*a* ", "- a\n", "a\n\n", "[a](b) <b>\n", "word " * 5 + "\n"])
def test_a_very_long_text_that_says_nothing_new_is_not_even_read(unit: str) -> None:
    assert not is_readable(unit * PREFIX_LENGTH)
    assert is_readable((unit * PREFIX_LENGTH)[:PREFIX_LENGTH])


@pytest.mark.parametrize("mark", ["> ", "- ", "> - "])
def test_what_stands_very_deep_is_not_lost(mark: str) -> None:
    assert "the end" in AnswerRenderer(text).html(mark * 300 + "the end")


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
