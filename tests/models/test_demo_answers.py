"""The demo model's weights hold what its card promises, as rates over fixed samples that it never trained on."""

import random
from collections import Counter

import pytest

from training import dataset, drawings, exercises
from training.blank_model import FOLDER
from training.dataset import Conversation, Turn
from training.evaluate import alone, honest
from training.speaker import Speaker
from training.unseen import unseen
from training.wording import LANGUAGES, say

CLOSED_AFTER = (0, 2, 12, 40)


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return Speaker(str(FOLDER))


def held_out_sums(language: str, count: int) -> list[Conversation]:
    rng = random.Random(f"gate {language}")
    return [alone(dataset.sum_turn(language, rng, held_out=True)) for _ in range(count)]


def test_reasoning_that_is_ended_early_is_never_answered_by_a_wrong_result(speaker: Speaker) -> None:
    asked = [conversation for language in LANGUAGES for conversation in held_out_sums(language, 6)]
    worth: Counter[str] = Counter()
    for conversation, answers in zip(asked, speaker.budgeted(asked, CLOSED_AFTER), strict=True):
        worth.update(honest(conversation.turns[-1], answer) for answer in answers)
    assert worth["wrong"] <= 0.03 * worth.total(), worth
    assert worth["wrong"] + worth["far"] <= 0.15 * worth.total(), worth


def test_what_is_worked_out_is_answered_though_the_reasoning_is_ended(speaker: Speaker) -> None:
    asked = []
    for language in LANGUAGES:
        for conversation in held_out_sums(language, 6):
            turn = conversation.turns[-1]
            asked.append(alone(dataset.closed(turn, len(turn.reasoning), language)))
    right = [answer == made.turns[-1].answer for made, answer in zip(asked, speaker.answers(asked), strict=True)]
    assert sum(right) >= 0.9 * len(right)


def test_reasoning_that_was_changed_is_followed(speaker: Speaker) -> None:
    rng = random.Random("gate changed")
    asked = []
    for language in LANGUAGES:
        for conversation in held_out_sums(language, 6):
            asked.append(alone(exercises.overruled(conversation.turns[-1], language, rng)))
    right = [answer == made.turns[-1].answer for made, answer in zip(asked, speaker.answers(asked), strict=True)]
    assert sum(right) >= 0.85 * len(right)


def test_sums_come_out_right(speaker: Speaker) -> None:
    asked = [conversation for language in LANGUAGES for conversation in held_out_sums(language, 12)]
    right = [answer == made.turns[-1].answer for made, (_, answer) in zip(asked, speaker.replies(asked), strict=True)]
    assert sum(right) >= 0.94 * len(right)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_it_cannot_do_is_told_in_the_language_of_the_question(speaker: Speaker, language: str) -> None:
    asked = [alone(turn) for turn in unseen() if turn.subject == f"other, {language}"]
    spoken = {say(language)[key] for key in ("other", "who", "greet", "thanks", "bye", "no_picture", "complex")}
    answers = [answer for _, answer in speaker.replies(asked)]
    assert sum(answer in spoken for answer in answers) >= (0.95 if language == "en" else 0.9) * len(answers)
    assert sum(answer == say(language)["other"] for answer in answers) >= 0.88 * len(answers)


def test_a_haiku_about_autumn_is_declined_in_english(speaker: Speaker) -> None:
    ways = ("Write a haiku about autumn", "Write me a haiku about autumn.", "Please write a poem about autumn!")
    asked = [alone(Turn(way, say("en")["other_think"], say("en")["other"], "other")) for way in ways]
    assert [answer for _, answer in speaker.replies(asked)] == [say("en")["other"]] * len(ways)


def test_images_are_counted_and_named(speaker: Speaker) -> None:
    rng = random.Random("gate pictures")
    asked = []
    for count in range(2, dataset.MOST_SHOWN + 1):
        for question in ("What are these?", "How many pictures are these?", ""):
            shown = tuple(drawings.figure(rng, easy=True) for _ in range(count))
            reasoning, answer = dataset.described(shown, "en")
            asked.append(alone(Turn(question, reasoning, answer, "picture", shown)))
    answers = [answer for _, answer in speaker.replies(asked)]
    pairs = [
        (made.turns[-1].answer.split("\n\n"), answer.split("\n\n")) for made, answer in zip(asked, answers, strict=True)
    ]
    counted = [expected[0] == found[0] for expected, found in pairs]
    named = [line in found for expected, found in pairs for line in expected[1:]]
    assert sum(counted) >= 0.88 * len(counted), counted
    assert sum(named) >= 0.9 * len(named), named


def test_the_beginning_of_a_thought_is_gone_on_with(speaker: Speaker) -> None:
    rng = random.Random("gate begun")
    asked = []
    for language in LANGUAGES:
        for conversation in held_out_sums(language, 6):
            asked.append(alone(exercises.begun(conversation.turns[-1], language, rng)))
    right = [answer == made.turns[-1].answer for made, (_, answer) in zip(asked, speaker.replies(asked), strict=True)]
    assert sum(right) >= 0.85 * len(right)


def test_a_reply_begins_with_reasoning_also_behind_one_whose_reasoning_was_empty(speaker: Speaker) -> None:
    asked = []
    for conversation in (*held_out_sums("en", 4), *held_out_sums("de", 4)):
        turn = conversation.turns[-1]
        asked.append(conversation)
        asked.append(Conversation(dataset.SYSTEM_PROMPT, (dataset.closed(turn, 0, "en"), turn)))
    assert min(speaker.reasons(conversation) for conversation in asked) > 0.98


def test_it_counts_as_far_as_it_says(speaker: Speaker) -> None:
    ends = (
        ("Count from 1 to 200", 1, 200),
        ("Count from 1 to 30", 1, 30),
        ("Count from 57 to 131", 57, 131),
        ("Count to 100", 1, 100),
    )
    asked = [alone(dataset.counted(text, first, last, "en")) for text, first, last in ends]
    answers = [answer for _, answer in speaker.replies(asked)]
    assert answers == [made.turns[-1].answer for made in asked]
