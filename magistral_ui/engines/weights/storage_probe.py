"""Says, for the doctor, what of the Hub's cache and the app's own data is on the disks, and how much room there is."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from magistral_ui.environment import UPLOAD_VARIABLE
from magistral_ui.errors import Message, ModelError

TWICE_BYTES = 10**8
"""Smaller files count as nothing: a tokenizer may be there twice."""
NAME = "magistral-ui"


def storage_facts(data_dir: str | None = None) -> Iterator[dict[str, Any]]:
    """Facts of the Hub's cache, and of the data folder: the one that is named, or the user's."""
    yield {"stage": "huggingface_hub"}
    from magistral_ui.engines.weights.hub_cache import hub_cache
    from magistral_ui.engines.weights.large_files import existing_folder

    cache = hub_cache()
    yield {"stage": "cache"}
    yield {"cache": _shown(cache), "cache_free": shutil.disk_usage(existing_folder(cache)).free}
    yield {"cache_problem": _problem(existing_folder(cache)), "symlinks": _has_symlinks(existing_folder(cache))}
    yield {"stage": "data"}
    data = _data_folder(data_dir)
    yield {"data": _shown(data), "data_free": shutil.disk_usage(existing_folder(data)).free}
    yield {"data_problem": _problem(existing_folder(data))}
    temporary = _temporary_folder()
    yield {"temporary": _shown(temporary), "temporary_free": shutil.disk_usage(existing_folder(temporary)).free}
    yield {"stage": "models"}
    yield from _models(cache)


def _models(cache: Path) -> Iterator[dict[str, Any]]:
    from magistral_ui.engines.weights.gguf_record import recorded_models, recorded_repositories
    from magistral_ui.engines.weights.held_repositories import HeldRepositories
    from magistral_ui.engines.weights.quantized_cache import copies_held
    from magistral_ui.models.cards import find_card

    held, complete, damaged = HeldRepositories(), [], []
    for name in held.names():
        if held.is_complete(name, find_card(name)):
            complete.append(name)
        else:
            damaged.append(_damage(name))
    for name in recorded_repositories():
        for each in recorded_models(name):
            complete += [f"{name}:{each.label}"] if each.is_complete else []
            damaged += [_gguf_damage(file.path, file.size) for file in each.all_files]
    count, size = copies_held()
    yield {"models": complete, "copies": count, "copies_bytes": size}
    partial = [file for end in ("partial", "incomplete") for file in cache.glob(f"models--*/blobs/*.{end}")]
    yield {"partial": len({file.parent for file in partial}), "partial_bytes": sum(map(_size, partial))}
    yield {"twice_bytes": _twice(cache)}
    yield {"damaged": [[each.key, dict(each.values)] for each in damaged if each is not None]}


def _damage(name: str) -> Message | None:
    """What is wrong with a file of an incomplete model, by its header; None: it is only not downloaded yet."""
    from magistral_ui.engines.weights.hub_cache import repository_folder
    from magistral_ui.engines.weights.pinned_revision import recorded
    from magistral_ui.models.cards import find_card
    from magistral_ui.models.folder import inspect_folder

    card = find_card(name)
    folder = repository_folder(name) / "snapshots" / str(recorded(name) or (card.revision if card else ""))
    try:
        inspect_folder(folder)
    except ModelError as error:
        file = str(error.message.values.get("file", ""))
        return (
            replace(error.message, values={**error.message.values, "model": name}) if _is_file(folder, file) else None
        )
    return None


def _gguf_damage(path: Path, size: int) -> Message | None:
    """The same of a GGUF file, which has to have this `size`."""
    from magistral_ui.models.gguf_file import header_of

    if not path.is_file():
        return None
    if _size(path) < size:
        return Message("gguf_cut_off", {"model": path.name, "file": path.name})
    try:
        header_of(path)
    except ModelError as error:
        return error.message
    return None


def _is_file(folder: Path, name: str) -> bool:
    return bool(name) and (folder / name).is_file()


def _twice(cache: Path) -> int:
    """Bytes of files of snapshots that are copies of a blob, instead of a link to it."""
    total = 0
    for repository in cache.glob("models--*"):
        blobs = {_size(blob) for blob in repository.glob("blobs/*") if blob.suffix not in (".partial", ".incomplete")}
        copied = [file for file in repository.glob("snapshots/*/*") if not file.is_symlink() and file.is_file()]
        total += sum(size for file in copied if (size := _size(file)) >= TWICE_BYTES and size in blobs)
    return total


def _data_folder(named: str | None) -> Path:
    from platformdirs import user_data_path

    return Path(named).expanduser() if named else user_data_path(NAME, appauthor=False)


def _temporary_folder() -> Path:
    """Where uploads are kept, as `prepare_environment` has chosen it."""
    return Path(os.environ.get(UPLOAD_VARIABLE) or tempfile.gettempdir())


def _problem(folder: Path) -> str:
    """Why nothing can be written in `folder`; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4_096)
            file.flush()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _has_symlinks(folder: Path) -> bool:
    """Whether a symbolic link can be made in `folder`; True where nothing can be."""
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                (Path(place) / "link").symlink_to("target")
            except (OSError, NotImplementedError):
                return False
    except OSError:
        pass
    return True


def _size(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_size
    return 0


def _shown(folder: Path) -> str:
    home = os.path.expanduser("~")
    return str(folder).replace(home, "~", 1) if str(folder).startswith(home) else str(folder)
