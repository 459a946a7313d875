"""What a model writes is drawn in an exported file as the cases say; tests/browser/test_drawn.py holds the page to them."""

from magistral_ui.chat.export.answers import AnswerRenderer
from magistral_ui.ui.i18n import text
from tests.drawn.cases import cases, normal


def test_an_exported_file_draws_every_case() -> None:
    answers = AnswerRenderer(text)
    wrong = {
        case.text: (found, drawn)
        for case in cases()
        if (found := case.problems(drawn := normal(answers.html(case.text))))
    }
    assert not wrong
    assert len(cases()) >= 250
