"""Remembers which commit of a repository ran last, so that weights change only on request; it downloads nothing.

The commit is stored beside the Hub's own references in its cache, so it disappears when the model is deleted there.
"""

import re
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

NAME = "magistral-ui"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    """Whether `revision` is a full commit hash; a branch or a tag can move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def recorded(repository: str) -> str | None:
    """The commit that ran last on this computer, or None."""
    try:
        found = _file(repository).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return found if is_commit(found) else None


def record(repository: str, commit: str) -> None:
    """Pin `commit` for later starts; if it cannot be written, the next start asks the Hub again."""
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
