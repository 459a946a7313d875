"""Remembers which commit of a repository ran last, so that weights change only on request; it downloads nothing.

That is stored beside the Hub's own references in its cache, so it disappears when the model is deleted there.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from magistral_ui.engines.weights.hub_cache import repository_folder
from magistral_ui.errors import ModelNotFound
from magistral_ui.models.folder import is_commit

REFERENCE = "magistral-ui"


def recorded(repository: str) -> str | None:
    """The commit that ran last on this computer."""
    try:
        found = _reference(repository).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return found if is_commit(found) else None


def record(repository: str, commit: str) -> None:
    """Pin `commit` for later starts; if it cannot be written, the next start asks the Hub again."""
    file = _reference(repository)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{REFERENCE}.partial")
        unfinished.write_text(commit, encoding="utf-8")
        unfinished.replace(file)


@contextmanager
def pinned_named(repository: str, revision: str | None, requested: str | None) -> Iterator[None]:
    """If a revision that we chose is gone from the Hub, the remedy differs from that for a `requested` one."""
    try:
        yield
    except ModelNotFound as error:
        if error.message.key != "revision_not_found" or requested is not None:
            raise
        raise ModelNotFound("own_revision_gone", model=repository, revision=str(revision)[:12]) from error


def _reference(repository: str) -> Path:
    return repository_folder(repository) / "refs" / REFERENCE
