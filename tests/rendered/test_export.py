"""What a model writes is drawn in an exported file as the cases say; tests/browser/test_rendered.py holds the page to them."""

from magistral_ui.export.answer_html import AnswerRenderer
from magistral_ui.i18n.texts import text
from tests.rendered.cases import cases, normal


def test_an_exported_file_draws_every_case() -> None:
    answers = AnswerRenderer(text)
    wrong = {
        case.text: (found, drawn)
        for case in cases()
        if (found := case.problems(drawn := normal(answers.html(case.text))))
    }
    assert not wrong
    assert len(cases()) >= 250
