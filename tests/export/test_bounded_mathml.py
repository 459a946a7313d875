"""Formulas that would take for ever, or all the memory, in a file: they stay text, and the others are drawn."""

import json
from typing import Any

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.reply import Reply
from magistral_ui.export import mathml
from magistral_ui.export.document import Document
from magistral_ui.export.html import export_html
from magistral_ui.export.mathml import BoundedFormulas, FormulasHere, FormulasOfAnswers
from magistral_ui.i18n.texts import text


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine one formula, and a process started anew, take longer than the formulas of a file may."""
    monkeypatch.setattr(mathml, "FILE_TIMEOUT", 600.0)


OPENERS = ("(", "[", r"\{ ", r"\langle ", r"\lfloor ", r"\lvert ")


def exported(*answers: str) -> str:
    conversation = Conversation()
    for answer in answers:
        conversation = conversation.say("hm").with_reply(Reply(answer=answer, finish_reason="stop"))
    return export_html([Document(conversation)], text)


def test_a_formula_that_takes_for_ever_stays_text_and_the_next_is_drawn() -> None:
    page = exported("$$" + "(" * 60 + "x^2$$", "$y^2$")
    assert "<code>" + "(" * 60 + "x^2</code>" in page
    assert "<msup><mi>y</mi><mn>2</mn></msup>" in page


def test_so_does_one_of_any_opener_however_they_are_mixed() -> None:
    mixed = "".join(OPENERS[number % len(OPENERS)] for number in range(60)) + "f(x+"
    page = exported(f"$${mixed}$$", "$y^2$")
    assert "<msup><mi>y</mi>" in page
    assert page.count("<math") == 1


def test_formulas_are_the_same_in_a_process_of_their_own() -> None:
    here, known = (
        FormulasHere(),
        [r"x^2", r"\frac{a}{b}", r"\unknown{x}", "<img src=x>", "\ud800", r"\begin{align}a&=b\end{align}"],
    )
    with BoundedFormulas() as bounded:
        for _ in range(2):
            here.begin_answer()
            bounded.begin_answer()
            for latex in known:
                assert bounded.html(latex, True) == here.html(latex, True)


def test_what_goes_to_the_process_is_json() -> None:
    assert FormulasOfAnswers()(*json.loads(json.dumps([1, "x", False]))) == FormulasHere().html("x", False)


def test_the_formulas_of_one_file_get_so_much_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathml, "FILE_TIMEOUT", -1.0)
    with BoundedFormulas() as bounded:
        called: list[Any] = []
        monkeypatch.setattr(bounded._process, "call", lambda *arguments: called.append(arguments))
        assert bounded.html("x", False) == "<code>x</code>"
        assert not called
