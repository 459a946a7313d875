"""Read requests written by hand, worded unlike the training patterns, with the replies expected for them."""

from magistral_ui.models.demo import sums
from magistral_ui.models.demo.dataset import Turn
from magistral_ui.models.demo.wording import phrases, say


def unseen() -> list[Turn]:
    """Return every request of `phrases/unseen.json` as a turn of its own."""
    turns = []
    for language, subjects in phrases("unseen").items():
        words = say(language)
        for subject, asked in subjects.items():
            for item in asked:
                if subject == "sum":
                    text, a, b, sign = item
                    reasoning = sums.reasoning(a, b, sign == "-", words)
                    turns.append(Turn(text, reasoning, sums.answer(a, b, sign == "-"), subject))
                    continue
                key = subject.replace(" ", "_")
                turns.append(Turn(item, words[f"{key}_think"], words[key], subject))
    return turns
