"""Read requests written by hand, worded unlike the training patterns, with the replies expected for them."""

from training import sums
from training.dataset import Turn
from training.wording import LANGUAGES, phrases, say


def unseen() -> list[Turn]:
    """Return every request of `phrases/unseen.json` as a turn of its own."""
    turns = [_refused(text, "en", "other, of another language") for text in phrases("unseen")["foreign"]]
    for language in LANGUAGES:
        words = say(language)
        for subject, asked in phrases("unseen")[language].items():
            for item in asked:
                if subject == "sum":
                    text, a, b, sign = item
                    reasoning = sums.reasoning(a, b, sign == "-", words)
                    turns.append(Turn(text, reasoning, sums.answer(a, b, sign == "-"), subject))
                    continue
                if subject == "other":
                    turns.append(_refused(item, language, f"other, {language}"))
                    continue
                key = subject.replace(" ", "_")
                turns.append(Turn(item, words[f"{key}_think"], words[key], subject))
    return turns


def _refused(text: str, language: str, subject: str) -> Turn:
    words = say(language)
    return Turn(text, words["other_think"], words["other"], subject)
