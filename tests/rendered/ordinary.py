"""Long texts as models write them: however long they are, they have to be drawn, with no part as it was written."""

from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_WORDS = "the of a prime field energy so that which proof sum where integral over each value bounded let be small large"
WORDS = _WORDS.split()
RARE = [chr(code) for code in range(0x4E00, 0x5600)]


def _prose(seed: int, count: int) -> str:
    return " ".join(WORDS[(seed * 7 + at * at + at * seed) % len(WORDS)] for at in range(count)).capitalize() + "."


def _chinese(seed: int, count: int) -> str:
    return "".join(RARE[(seed * 31 + at * at * 7 + at) % len(RARE)] for at in range(count))


def _each(count: int, piece: Callable[[int], str], between: str = "\n") -> str:
    return between.join(piece(at) for at in range(count))


def _section(at: int) -> str:
    return (
        f"## {_prose(at, 3)}\n\n{_prose(at, 30)} **{_prose(at, 2)}** and `{_prose(at, 1)}` with $x_{at}$.\n\n"
        f"- {_prose(at, 4)}\n- {_prose(at, 5)}\n\n| a | b |\n|---|---|\n| {at} | *x* |\n\n"
    )


def ordinary() -> dict[str, str]:
    """The texts, by what they are."""
    docs = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
    mathematics = _each(
        150,
        lambda at: f"{_prose(at, 12)} Let $x_{{{at}}} = {at}^2$ and $y={at}$, so $a_{at}$ and \\(z_{at}\\).",
        "\n\n",
    )
    return {
        "600 formulas": mathematics,
        "600 formulas in one paragraph": mathematics.replace("\n\n", " "),
        "formulas in a list": _each(120, lambda at: f"- $a_{{{at}}}$, $b$, $c_{at}$, $d$, $e^{at}$"),
        "a table": "| n | a | b | c |\n|---|---|---|---|\n"
        + _each(1000, lambda at: f"| {at} | yes | **{at % 7}** | `x` |"),
        "a narrow table": "|a|b|c|d|\n|-|-|-|-|\n" + _each(1000, lambda at: f"|{at}|{at % 7}|{at % 3}|{at % 2}|"),
        "numbers": _each(3000, lambda at: f"- {at}"),
        "nested lists": _each(1500, lambda at: f"{'  ' * (at % 4)}- {_prose(at, 5)} **{at}**"),
        "steps": _each(500, lambda at: f"{at}. {_prose(at, 6)}\n   - {_prose(at, 3)}\n   - `code {at}`\n"),
        "code": _each(
            300, lambda at: f"{_prose(at, 10)}\n\n```python\ndef f{at}(x):\n    return x + {at}\n```", "\n\n"
        ),
        "long code": "```python\n" + _each(8000, lambda at: f"x_{at} = f({at})  # [a]({at})") + "\n```",
        "documents": docs,
        "the same sections many times": _each(4, _section, "") * 220,
        "much emphasis": _each(
            800, lambda at: f"**Step {at}:** *{_prose(at, 3)}* `{at}` ~~{at}~~ [a](https://b.c/{at})"
        ),
        "a long line": _each(800, lambda at: f"{_prose(at, 8)} *{at}* [a](https://a.b/{at})", " "),
        "Chinese": _each(300, lambda at: f"{_chinese(at, 300)}，**{_chinese(at, 5)}**。", "\n\n"),
        "a long line of Chinese": _each(1500, lambda at: f"{_chinese(at, 20)}，**{_chinese(at, 2)}**。", ""),
        "130,000 tokens": _each(1400, lambda at: f"{_prose(at, 60)} **{at}** $x_{at}$", "\n\n"),
    }
