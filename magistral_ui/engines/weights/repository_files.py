"""Tells what files of a repository are on this computer, and deletes what this app may; it downloads none.

It may delete revisions of a repository in the Hub's cache, partial files, and quantized copies; never a user's folder.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from magistral_ui.engines.weights.hub_cache import folder_of, hub_cache
from magistral_ui.engines.weights.pinned_revision import REFERENCE
from magistral_ui.engines.weights.quantized_cache import ORIGIN_FILE, copies_folder

FileMarks = frozenset[tuple[str, int, int]]
TOTAL_FILE = "magistral-ui-total"
"""In a repository's folder: the bytes of all files that are downloaded, for after a restart."""


def holds_safetensors(repository: str) -> bool:
    """Whether any revision of a repository has weights in the format that the local engine reads."""
    folder = folder_of(repository)
    return folder is not None and any(folder.glob("snapshots/*/*.safetensors"))


def held_sizes(repository: str) -> tuple[int, int]:
    """Bytes of the complete and of the partial files of a repository."""
    folder = folder_of(repository)
    files = partial = 0
    for file in _files_in(folder) if folder else ():
        with suppress(OSError):  # it may just have got its final name
            size = file.stat().st_size
            if file.suffix in (".partial", ".incomplete"):
                partial += size
            else:
                files += size
    return files, partial


def _files_in(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        files = (Path(where) / name for name in names if name != TOTAL_FILE)
        yield from (file for file in files if not file.is_symlink())


def file_marks(repository: str) -> FileMarks:
    """What changes with the files of a repository and of its copies: their names, sizes and times, links included."""
    folder = folder_of(repository)
    marks = set()
    for top in (*([folder] if folder else ()), *copies_of(repository)):
        for where, _, names in os.walk(top):
            for file in (Path(where) / name for name in names):
                with suppress(OSError):
                    found = file.lstat()
                    marks.add((str(file), found.st_size, found.st_mtime_ns))
    return frozenset(marks)


def total_of(repository: str) -> int | None:
    """Bytes of a whole download, as the Hub reported when it last began."""
    folder = folder_of(repository)
    try:
        return int((folder / TOTAL_FILE).read_text(encoding="ascii")) if folder else None
    except (OSError, ValueError):
        return None


def record_total(repository: str, total: int) -> None:
    folder = folder_of(repository)
    with suppress(OSError):
        if folder is not None and total_of(repository) != total:
            (folder / TOTAL_FILE).write_text(str(total), encoding="ascii")


def copies_size(repository: str) -> int:
    """Bytes of the quantized copies of a repository."""
    return sum(file.stat().st_size for copy in copies_of(repository) for file in _files_in(copy) if file.exists())


def copies_of(repository: str) -> list[Path]:
    """The automatic quantized copies that were made from a repository."""
    found = []
    for origin in copies_folder().glob(f"*/{ORIGIN_FILE}"):
        with suppress(OSError, ValueError, AttributeError):
            made_from = json.loads(origin.read_text(encoding="utf-8")).get("model")
            if made_from == repository and not origin.parent.is_symlink():
                found.append(origin.parent)
    return found


def delete_files(repository: str) -> None:
    """Delete all of a repository that this app may delete."""
    _delete_revisions(repository)
    _delete_leftovers(repository)
    for copy in copies_of(repository):
        shutil.rmtree(copy, ignore_errors=True)


def delete_partial(repository: str) -> None:
    """Delete what is left of downloads of other revisions, once one is complete."""
    folder = folder_of(repository)
    for file in folder.glob("blobs/*.partial") if folder else ():
        with suppress(OSError):
            file.unlink()


def _delete_revisions(repository: str) -> None:
    """Delete what the Hub's client knows of a repository, in its own way: files that other revisions share stay with these."""
    try:
        cache = scan_cache_dir(hub_cache())
    except CacheNotFound:
        return
    for repo in cache.repos:
        if repo.repo_type == "model" and repo.repo_id == repository:
            commits = [revision.commit_hash for revision in repo.revisions]
            if commits:
                cache.delete_revisions(*commits).execute()


def _delete_leftovers(repository: str) -> None:
    """Delete what the Hub's client does not know: files of no revision and our own reference; then the folders that are empty.

    A download that was stopped leaves complete files, too, which belong to no revision yet.
    """
    folder = folder_of(repository)
    if folder is None:
        return
    held = {file.resolve() for file in folder.glob("snapshots/**/*")}
    unheld = [blob for blob in folder.glob("blobs/*") if blob.resolve() not in held]
    for file in (*unheld, *folder.glob(f"refs/*{REFERENCE}*"), folder / TOTAL_FILE):
        with suppress(OSError):
            file.unlink()
    for where, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty: somebody else's files are in it
            Path(where).rmdir()
