"""Make up exercises for the demo model: one thing alone, or reasoning that is ended early, given or changed; no tokens yet.

    python -m training.exercises

prints a few of what it learns from.
"""

import random
from dataclasses import replace

from training import dataset, drawings, sums
from training.dataset import Conversation, Turn
from training.wording import LANGUAGES, phrases

DRILLS = 0.06  # share of the conversations that are nothing but a bare sum
CLOSED_DRILLS = 0.18  # share of those that are one sum whose reasoning is ended early
CHANGED = 0.05  # share of those that are one sum with reasoning that a person wrote or changed
BUDGETED = 0.05  # share of those in which every reasoning is ended early
GALLERIES = 0.16  # share of those that are nothing but several pictures, as small as can be seen for the most part
UNKNOWN = 0.18  # share of those that are nothing but something that the model cannot do
COUNTS = 0.03  # share of those that count far
SMALL_TALK = 0.09  # share of those that are a greeting or its like, a count, or a question about no picture
SMALL = 56  # pixels: 2 x 2 image tokens


def practice(rng: random.Random) -> Conversation:
    """Make up what the model learns from: an exercise, or a conversation as people have them."""
    language, draw = dataset.any_language(rng), rng.random()
    for make, share in EXERCISES:
        if draw < share:
            return make(language, rng)
        draw -= share
    return dataset.conversation(rng)


def drill(language: str, rng: random.Random) -> Conversation:
    """Ask for a sum, more often a difference, and nothing else: the shortest way to practise the reasoning."""
    minus = rng.random() < 0.7
    turn = dataset.bare_sum(minus, rng) if language == "en" else dataset.sum_turn(language, rng, minus=minus)
    return Conversation(None, (turn,), brief=rng.random() < 0.65)


def closed_drill(language: str, rng: random.Random) -> Conversation:
    """Ask for a sum, and end the reasoning early."""
    bare = language == "en" and rng.random() < 0.5
    turn = dataset.bare_sum(rng.random() < 0.5, rng) if bare else dataset.sum_turn(language, rng)
    return Conversation(_short(rng), (dataset.closed(turn, _cut(turn.reasoning, rng), language),))


def unknown(language: str, rng: random.Random) -> Conversation:
    """Ask for something that the model cannot do; its reasoning may be ended early, too."""
    language = rng.choice((language, *LANGUAGES))
    turn = dataset.other_turn(language, rng)
    if rng.random() < 0.25:
        turn = dataset.closed(turn, rng.choice((0, 0, rng.randint(0, len(turn.reasoning)))), language)
    return Conversation(_short(rng), (turn,), brief=rng.random() < 0.7)


def small_talk(language: str, rng: random.Random) -> Conversation:
    """Say a kind word, ask who this is, let it count, or forget the picture."""
    make = rng.choice((dataset.social_turn, dataset.social_turn, dataset.counting_turn, dataset.no_image_turn))
    return Conversation(_short(rng), (make(language, rng),), brief=make is dataset.social_turn and rng.random() < 0.6)


def count(language: str, rng: random.Random) -> Conversation:
    """Let it count far."""
    return Conversation(_short(rng), (dataset.counting_turn(language, rng, far=True),))


def gallery(language: str, rng: random.Random) -> Conversation:
    """Show several pictures at once: how many they are, and, in every second one, which is which."""
    brief = rng.random() < 0.5
    most = rng.randint(5, dataset.MOST_SHOWN) if brief else rng.randint(2, dataset.MOST_SHOWN)
    shown = tuple(drawings.image(rng) for _ in range(most))
    if rng.random() < (0.85 if brief else 0.6):
        shown = tuple(drawings.shrunk(image, SMALL) for image in shown)
    turn = dataset.looked_at(shown, language, rng)
    if rng.random() < 0.2:
        turn = dataset.closed(turn, rng.choice((0, rng.randint(0, len(turn.reasoning)))), language)
    return Conversation(_short(rng), (turn,), brief=brief)


def changed(language: str, rng: random.Random) -> Conversation:
    """Ask for a sum whose reasoning a person wrote or changed: the reply goes on from there."""
    turn = dataset.sum_turn(language, rng)
    draw = rng.random()
    if draw < 0.4:
        turn = begun(turn, language, rng)
    elif draw < 0.5:  # ended where a person only began to think
        turn = dataset.closed(replace(turn, given=_begun(turn, language, rng)), 0, language)
    else:
        turn = overruled(turn, language, rng)
    return Conversation(_short(rng), (turn,))


def begun(turn: Turn, language: str, rng: random.Random) -> Turn:
    """Let a reply to a sum go on from the beginning of its own reasoning, or from what a person thought first."""
    cut = rng.randint(1, len(turn.reasoning))
    if rng.random() < 0.6:
        return replace(turn, given=turn.reasoning[:cut], reasoning=turn.reasoning[cut:])
    return replace(turn, given=_begun(turn, language, rng), reasoning=f"\n{turn.reasoning}")


def overruled(turn: Turn, language: str, rng: random.Random) -> Turn:
    """Let a reply to a sum answer what a person thought, though it is wrong."""
    right = sums.result(*dataset.numbers_of(turn))
    wrong = right + rng.choice((-100, -10, -2, -1, 1, 1, 2, 10, 100))
    steps, _, last = turn.reasoning.rpartition("\n")
    if rng.random() < 0.5:
        given = f"{steps}\n" + f"{wrong}".join(last.rsplit(str(right), 1))
    else:
        before = rng.choice(("", f"{_begun(turn, language, rng)}\n", f"{steps}\n"))
        told = rng.choice(phrases(language)["thought_result"])
        given = before + told.format(x=turn.answer.partition(" =")[0], n=wrong)
    answer = turn.answer.replace(f"**{right}**", f"**{wrong}**")
    return replace(turn, given=given, reasoning="", answer=answer, result=wrong, closed=0)


def _begun(turn: Turn, language: str, rng: random.Random) -> str:
    """Return what a person may begin to think about a sum."""
    a, b, _ = dataset.numbers_of(turn)
    begun: str = rng.choice(phrases(language)["thought_begun"])
    return begun.format(a=a, b=b, d=" ".join(str(a)), x=turn.answer.partition(" =")[0])


def budgeted(language: str, rng: random.Random) -> Conversation:
    """Talk for some turns with so small a budget that every reasoning is ended early."""
    most = rng.choice((0, rng.randint(1, 12), rng.randint(1, 60), rng.randint(30, 200)))
    turns: list[Turn] = []
    while not turns or (len(turns) < dataset.MOST_TURNS and rng.random() < 0.6):
        turn = dataset.next_turn(turns, language, rng) if turns else dataset.first_turn(language, rng)
        turns.append(dataset.closed(turn, most, language) if most < len(turn.reasoning) else turn)
    return Conversation(dataset.system_prompt(rng), tuple(turns), rng.random() < 0.7)


def _cut(reasoning: str, rng: random.Random) -> int:
    """Return where a reasoning is ended: often at once or soon, sometimes where all is worked out."""
    draw = rng.random()
    if draw < 0.3:
        return 0
    if draw < 0.66:
        return rng.randint(1, min(30, len(reasoning)))
    if draw < 0.88:
        return rng.randint(0, len(reasoning))
    return rng.randint(sums.worked_out(reasoning), len(reasoning))


def _short(rng: random.Random) -> str | None:
    """Return the model's own system prompt, or none to save time."""
    return dataset.system_prompt(rng) if rng.random() < 0.35 else None


EXERCISES = (
    (drill, DRILLS),
    (closed_drill, CLOSED_DRILLS),
    (changed, CHANGED),
    (budgeted, BUDGETED),
    (gallery, GALLERIES),
    (unknown, UNKNOWN),
    (small_talk, SMALL_TALK),
    (count, COUNTS),
)

if __name__ == "__main__":
    for seed in range(30):
        made = practice(random.Random(seed))
        print(f"--- {made.system!r}" + (" (brief)" if made.brief else ""))
        for turn in made.turns:
            print(f"> {len(turn.images)} pictures, {turn.text!r}, {turn.given!r} given, closed {turn.closed}")
            print(f"  ({turn.reasoning!r})\n  {turn.answer!r}")
