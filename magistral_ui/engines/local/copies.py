"""Keeps a quantized copy of a model in a folder, so that the next start reads 14 GB instead of 48; it quantizes nothing.

A copy must be saved before the model's first forward: on a processor that lays the weights out anew.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from magistral_ui.errors import CopyNotSaved

ORIGIN = "magistral_ui_origin.json"
"""What a copy was made from: only a folder with this file is ever taken for a copy, or replaced."""
KEPT = ("tekken.json", "SYSTEM_PROMPT.txt", "generation_config.json")


def is_copy(folder: Path, origin: dict[str, str]) -> bool:
    """Whether `folder` holds a copy of just this origin: model, revision and precision."""
    try:
        found = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == origin)


def check_copy_folder(folder: Path) -> None:
    """Refuse a folder in which something else lies, before hours of work are put into it."""
    if folder.exists() and not (folder / ORIGIN).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CopyNotSaved("copy_folder_in_use", folder=str(folder))


def save_copy(model: Any, source: Path, folder: Path, origin: dict[str, str]) -> None:
    """Write `model`, with the other files of `source`, to `folder`: all of it or nothing."""
    check_copy_folder(folder)
    unfinished = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        model.save_pretrained(unfinished, max_shard_size="5GB")
        for name in KEPT:
            if (source / name).exists():
                shutil.copy(source / name, unfinished)
        (unfinished / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    except (OSError, RuntimeError) as error:  # safetensors raises its own error, for a full disk too
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CopyNotSaved(folder=str(folder), reason=reason) from error
