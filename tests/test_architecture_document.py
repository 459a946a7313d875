"""docs/architecture.md names only what exists, so that it stays a map."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PATH = re.compile(r"`([\w/.-]+(?:/|\.(?:py|js|css|json|md)))`")
DEFINITION = re.compile(r"`([A-Z]\w+|[a-z]+_[a-z_]+)` in `([\w/.]+\.py)`")


def place_of(name: str) -> Path:
    return next(
        (each for each in (ROOT / name, ROOT / "magistral_ui" / name, ROOT / "docs" / name) if each.exists()),
        ROOT / name,
    )


def test_every_named_file_exists() -> None:
    named = set(PATH.findall(DOCUMENT))
    assert len(named) > 40
    assert {name for name in named if not place_of(name).exists()} == set()


def test_every_named_definition_is_in_its_file() -> None:
    named = DEFINITION.findall(DOCUMENT)
    assert len(named) > 8
    missing = {(name, file) for name, file in named if not re.search(rf"\b{name}\b", place_of(file).read_text("utf-8"))}
    assert missing == set()


def test_the_table_has_tasks_enough() -> None:
    rows = re.findall(r"^\| (?!Task|---)(.+?) \|", DOCUMENT, re.MULTILINE)
    assert len(rows) >= 20
    assert len(set(rows)) == len(rows)
