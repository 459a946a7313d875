"""Remembers which commit of a repository was run last, so that weights change only when somebody asks; it downloads nothing.

The commit stands beside the Hub's own references in its cache, so it goes when the model is deleted from there.
"""

import re
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

NAME = "magistral-ui"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    """Whether `revision` can only ever mean one thing: a branch and a tag can move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def recorded(repository: str) -> str | None:
    """The commit that was run last on this computer, or None."""
    try:
        found = _file(repository).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return found if is_commit(found) else None


def record(repository: str, commit: str) -> None:
    """Run `commit` at later starts too; where that cannot be written down, the next start asks the Hub again."""
    file = _file(repository)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{NAME}.partial")
        unfinished.write_text(commit, encoding="utf-8")
        unfinished.replace(file)
    except OSError:
        return


def _file(repository: str) -> Path:
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "refs" / NAME
