"""Remembers which commit of a repository ran last, so that weights change only on request; it downloads nothing.

That is stored beside the Hub's own references in its cache, so it disappears when the model is deleted there.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from magistral_ui.engines.weights.hub import held_snapshot
from magistral_ui.engines.weights.quantized_cache import copy_for
from magistral_ui.errors import ModelNotFound
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.folder import is_commit

REFERENCE = "magistral-ui"


def is_complete(card: ModelCard) -> bool:
    """Whether all of the card's files are on this computer, at the commit that would run, or a quantized copy of them."""
    name = card.repository or ""
    revision = recorded(name) or card.revision
    if not is_commit(revision):
        return False
    copies = (copy_for("auto", name, str(revision), precision) for precision in ("nf4", "int8"))
    return held_snapshot(name, revision) is not None or any(copy is not None and copy.is_there for copy in copies)


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
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "refs" / REFERENCE
