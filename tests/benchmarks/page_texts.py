"""Text of the kind that a reasoning model writes, made from a seed: prose, lists, mathematics and code; it means nothing."""

import random
from collections.abc import Iterator

PROSE = (
    "so the sum of these two terms is even and we may write it as a product then check whether every case was counted "
    "wait that is not right because the second factor can be zero let me try again with a smaller number first "
    "suppose that it holds for all values below this one hence by induction the claim follows for the next step too"
)
WORDS = PROSE.split()
FORMULAS = (r"x^2 + y^2 = z^2", r"\frac{a+b}{2}", r"\sum_{k=1}^{n} k", r"\sqrt{2n+1}", r"a_{n+1} = a_n + d")
CODE = "```python\ndef total(numbers):\n    # add them up\n    return sum(n for n in numbers if n > 0)\n```"
TOKEN = 4.4
"""Characters of a token on average, as in English reasoning."""


def text(length: int, seed: int = 0) -> str:
    """`length` characters of it."""
    parts, size = [], 0
    for paragraph in paragraphs(seed):
        parts.append(paragraph)
        size += len(paragraph)
        if size >= length:
            return "".join(parts)[:length]
    raise AssertionError


def tokens(whole: str, seed: int = 0) -> Iterator[str]:
    """The text in pieces as long as tokens are."""
    source, at = random.Random(seed), 0
    while at < len(whole):
        size = source.choice((2, 3, 4, 4, 5, 6, 7))
        yield whole[at : at + size]
        at += size


def paragraphs(seed: int) -> Iterator[str]:
    """Prose mostly, with formulas inside and apart, lists and code here and there; without an end."""
    source = random.Random(seed)
    while True:
        kind = source.random()
        if kind < 0.1:
            yield f"$$\n{source.choice(FORMULAS)}\n$$\n\n"
        elif kind < 0.2:
            yield "".join(f"{number}. {_sentence(source)}\n" for number in range(1, source.randint(3, 6))) + "\n"
        elif kind < 0.24:
            yield f"{CODE}\n\n"
        else:
            yield " ".join(_sentence(source) for _ in range(source.randint(2, 6))) + "\n\n"


def _sentence(source: random.Random) -> str:
    words = [source.choice(WORDS) for _ in range(source.randint(6, 18))]
    if source.random() < 0.2:
        words.insert(source.randint(1, len(words)), f"${source.choice(FORMULAS)}$")
    return " ".join(words).capitalize() + "."
