"""Saves quantized copies of models, so that the next start reads 14 GB instead of 48; it quantizes nothing.

A copy must be saved before the model's first forward, which rearranges the weights on a processor. Automatic copies are kept in
the Hub client's assets cache (under HF_HOME), and only while there is plenty of disk space.
"""

import hashlib
import json
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.large_files import existing_folder
from magistral_ui.engines.weights.progress import Report
from magistral_ui.errors import CopyNotSaved, MagistralUIError, first_line
from magistral_ui.models.folder import FolderFacts, inspect_folder

log = logging.getLogger(__name__)

ORIGIN_FILE = "magistral_ui_origin.json"
"""Records what a copy was made from; a folder without this file is never taken for a copy, nor replaced."""
COPIED_FILES = ("tekken.json", "SYSTEM_PROMPT.txt", "generation_config.json")
MIN_CACHED_BYTES = 2**30
"""Models smaller than this are quantized as fast as a copy is read."""
FREE_SPACE_FACTOR = 3
"""An automatic copy needs this many times its size in free disk space."""


@dataclass(frozen=True, slots=True)
class QuantizedCopy:
    """Where a copy is or will be, and what it is made from: model, revision and precision."""

    folder: Path
    origin: dict[str, str]
    asked: bool
    """Whether the operator named the folder; an automatic copy is never a reason to fail."""

    @property
    def is_there(self) -> bool:
        """Whether the folder holds a complete copy of exactly this origin."""
        try:
            found = json.loads((self.folder / ORIGIN_FILE).read_text(encoding="utf-8"))
            return bool(found == self.origin) and bool(inspect_folder(self.folder))
        except (OSError, ValueError, MagistralUIError):
            return False

    def check_folder(self) -> None:
        folder = self.folder
        if folder.exists() and not (folder / ORIGIN_FILE).exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CopyNotSaved("copy_folder_in_use", folder=str(folder))

    def has_room(self, size: int) -> bool:
        """Whether to save a copy of `size` bytes; CopyNotSaved if it was asked for and does not fit."""
        free = shutil.disk_usage(existing_folder(self.folder)).free
        if self.asked and free < size + MIN_CACHED_BYTES:
            needed = round((size + MIN_CACHED_BYTES) / 1e9, 1)
            raise CopyNotSaved("copy_no_room", folder=str(self.folder), needed=needed, free=round(free / 1e9, 1))
        return self.asked or (size >= MIN_CACHED_BYTES and free >= FREE_SPACE_FACTOR * size)


def copies_folder() -> Path:
    return Path(constants.HF_ASSETS_CACHE) / "magistral-ui" / "quantized"


def copy_for(wanted: str, model: str, revision: str, precision: str) -> QuantizedCopy | None:
    """The copy of a model in `precision`; `wanted` is `auto`, `no`, or a folder. None if no copy is to be kept.

    Raises CopyNotSaved for a folder that holds something else, before hours of work go into it.
    """
    if wanted == "no" or precision not in ("nf4", "int8"):
        return None
    origin = {"model": model, "revision": revision, "precision": precision}
    if wanted != "auto":
        copy = QuantizedCopy(Path(wanted).expanduser(), origin, asked=True)
        copy.check_folder()
        return copy
    name = re.sub(r"[^\w.-]+", "--", model).strip("-.")[-80:]
    return QuantizedCopy(copies_folder() / f"{name}--{revision[:12]}--{precision}", origin, asked=False)


def copies_held() -> tuple[int, int]:
    """The number of automatic copies, and their bytes."""
    folders = [origin.parent for origin in copies_folder().glob(f"*/{ORIGIN_FILE}")]
    return len(folders), sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def fingerprint(facts: FolderFacts) -> str:
    """A hash that changes with the weights in a folder: their names, sizes and modification times."""
    marks = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in facts.weights]
    return hashlib.sha256(repr((str(facts.folder.resolve()), marks)).encode()).hexdigest()[:40]


def save_copy(model: Any, source: Path, copy: QuantizedCopy, size: int, report: Report) -> None:
    """Write `model` (about `size` bytes) with the other files of `source`, completely or not at all.

    Raises CopyNotSaved if that fails; for an automatic copy, the failure is only logged.
    """
    try:
        copy.check_folder()
        if copy.has_room(size):
            _save(model, source, copy, size, report)
    except CopyNotSaved as error:
        if copy.asked:
            raise
        log.warning("no quantized copy was kept: %s", error)


def _save(model: Any, source: Path, copy: QuantizedCopy, size: int, report: Report) -> None:
    folder = copy.folder
    unfinished = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with _watched(unfinished, size, report):
            model.save_pretrained(unfinished, max_shard_size="5GB")
        for name in COPIED_FILES:
            if (source / name).exists():
                shutil.copy(source / name, unfinished)
        (unfinished / ORIGIN_FILE).write_text(json.dumps(copy.origin), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    except (OSError, RuntimeError) as error:  # a full disk raises safetensors' own error
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CopyNotSaved(folder=str(folder), reason=first_line(error)) from error


@contextmanager
def _watched(folder: Path, size: int, report: Report) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            written = sum(file.stat().st_size for file in folder.glob("*") if file.exists())
            report(Loading("saving", min(written, size), size))

    report(Loading("saving", 0, size))
    watching = threading.Thread(target=watch, name="watch copy", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()
