"""The lines of a benchmark's table, printed as they come and written into docs; not how they are measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what was measured, what it must reach, what it reached."""

    what: str
    goal: str
    reached: float | None
    """None: it was not measured, for the reason in `note`."""

    met: bool
    note: str = ""


def at_least(what: str, goal: float, reached: float, note: str = "") -> Row:
    return Row(what, f"≥ {goal:g}", reached, reached >= goal, note)


def at_most(what: str, goal: float, reached: float, note: str = "") -> Row:
    return Row(what, f"≤ {goal:g}", reached, reached <= goal, note)


def told(what: str, reached: float, note: str = "") -> Row:
    """A figure without a goal."""
    return Row(what, "", reached, True, note)


def not_measured(what: str, why: str) -> Row:
    """A figure that there is none of, which is no failure."""
    return Row(what, "", None, True, why)


def table(lines: list[Row]) -> str:
    """The rows as Markdown."""
    body = [f"| {r.what} | {r.goal} | {_number(r)} | {_met(r)} | {r.note} |" for r in lines]
    return "\n".join(["| what | goal | reached | met | |", "|---|---|---|---|---|", *body])


def _number(row: Row) -> str:
    return "–" if row.reached is None else f"{row.reached:.3g}"


def _met(row: Row) -> str:
    if not row.goal:
        return ""
    return "yes" if row.met else "**no**"


def write_table(name: str, lines: list[Row], foot: str = "", document: str = "benchmarks.md") -> None:
    """Put the table, and what there is to say of the run, between its two marks in a `document` of docs."""
    page = Path(__file__).parents[2] / "docs" / document
    head, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- /{name} -->")
    told = f"\n{foot}\n" if foot else ""
    page.write_text(f"{head}{begin}{table(lines)}\n{told}{end}{tail}", encoding="utf-8")


def measured(lines: Iterator[Row]) -> list[Row]:
    """All rows, each printed as soon as it is known."""
    out = []
    for row in lines:
        print(
            f"{'ok  ' if row.met else 'MISS'} {row.what}: {_number(row)} ({row.goal or 'no goal'}) {row.note}",
            flush=True,
        )
        out.append(row)
    return out
