"""Remembers which files belong to the GGUF models of a repository, and deletes those of one; it downloads nothing.

That is stored in the repository's folder of the Hub's cache, so it disappears when the repository is deleted there.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from magistral_ui.engines.weights.hub_cache import repositories_with, repository_folder
from magistral_ui.engines.weights.large_files import LargeFile, partial_file
from magistral_ui.engines.weights.repository_files import holds_safetensors
from magistral_ui.models.folder import is_repository
from magistral_ui.models.gguf_names import is_safe_path

RECORD_FILE = "magistral-ui-gguf.json"


def _checked_path(name: str) -> str:
    if not is_safe_path(name):
        raise ValueError
    return name


def _checked_repository(name: str) -> str:
    if not is_repository(name):
        raise ValueError
    return name


Repository = Annotated[str, AfterValidator(_checked_repository)]


class HeldFile(BaseModel):
    """A file of a repository at one commit, as the Hub described it; it may be here, in part or not."""

    model_config = ConfigDict(frozen=True)
    repository: Repository
    commit: str = Field(pattern="^[0-9a-f]{40}$")
    name: Annotated[str, AfterValidator(_checked_path)]
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def large_file(self) -> LargeFile:
        return LargeFile(self.name, self.size, self.sha256)

    @property
    def path(self) -> Path:
        """Where it is once it is complete."""
        return repository_folder(self.repository) / "snapshots" / self.commit / self.name

    @property
    def is_complete(self) -> bool:
        return _size(self.path) == self.size

    @property
    def bytes_here(self) -> int:
        """Bytes of it that are on this computer."""
        blobs = repository_folder(self.repository) / "blobs"
        files = (self.path, blobs / self.sha256, partial_file(blobs, self.large_file))
        return max(map(_size, files))


class HeldModel(BaseModel):
    """A model of a repository in one quantization, with its projector."""

    model_config = ConfigDict(frozen=True)
    label: str = Field(min_length=1, max_length=1_000)
    """The quantization as it is named in the repository."""
    files: tuple[HeldFile, ...] = Field(min_length=1)
    mmproj: HeldFile | None = None

    @property
    def commit(self) -> str:
        return self.files[0].commit

    @property
    def all_files(self) -> tuple[HeldFile, ...]:
        return (*self.files, *([self.mmproj] if self.mmproj else []))

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.all_files)

    @property
    def bytes_here(self) -> int:
        return sum(file.bytes_here for file in self.all_files)

    @property
    def is_complete(self) -> bool:
        return all(file.is_complete for file in self.all_files)

    def has_label(self, label: str) -> bool:
        return self.label.casefold() == label.casefold()


_MODELS = TypeAdapter(list[HeldModel])


def recorded_models(repository: str) -> list[HeldModel]:
    """The GGUF models of a repository that were downloaded here, or begun, the latest last; some at several commits."""
    try:
        return _MODELS.validate_json((repository_folder(repository) / RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return []


def recorded_model(repository: str, label: str) -> HeldModel | None:
    """The model of that label: the latest complete download, or else the latest one."""
    found = [each for each in reversed(recorded_models(repository)) if each.has_label(label)]
    return next((each for each in found if each.is_complete), found[0] if found else None)


def recorded_repositories() -> Iterator[str]:
    """The repositories of which a GGUF model was begun here."""
    return repositories_with(RECORD_FILE)


def record_model(repository: str, model: HeldModel) -> None:
    """Remember what belongs to a model before its download begins."""
    with _locked(repository):
        others = [
            each for each in recorded_models(repository) if (each.label, each.commit) != (model.label, model.commit)
        ]
        _write(repository, [*others, model])


def forget_unfinished(repository: str, model: HeldModel) -> None:
    """Delete unfinished downloads of the same model at other commits, now that it is complete."""
    with _locked(repository):
        models = recorded_models(repository)
        stale = [each for each in models if each.has_label(model.label) and each != model and not each.is_complete]
        if stale:
            _write(repository, [each for each in models if each not in stale])
            _delete_unused(repository, stale)


def delete_model(repository: str, label: str) -> None:
    """Delete a model, and its projector unless another recorded model uses it; other programs' files stay."""
    with suppress(OSError), _locked(repository):
        models = recorded_models(repository)
        gone = [each for each in models if each.has_label(label)]
        _write(repository, [each for each in models if each not in gone])
        _delete_unused(repository, gone)


@contextmanager
def _locked(repository: str) -> Iterator[None]:
    """Two processes may share the cache."""
    folder = repository_folder(repository)
    lock = folder.parent / ".locks" / folder.name / f"{RECORD_FILE}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


def _write(repository: str, models: list[HeldModel]) -> None:
    file = repository_folder(repository) / RECORD_FILE
    if not models:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{RECORD_FILE}.partial")
    unfinished.write_bytes(_MODELS.dump_json(models, indent=1))
    unfinished.replace(file)


def _delete_unused(repository: str, models: Iterable[HeldModel]) -> None:
    """Delete the files of `models`, except those that a recorded model of any repository uses: a projector may be shared."""
    kept = {file for name in recorded_repositories() for model in recorded_models(name) for file in model.all_files}
    gone = {file for model in models for file in model.all_files} - kept
    for file in gone:
        with suppress(OSError):
            file.path.unlink(missing_ok=True)
    for each in {repository, *(file.repository for file in gone)}:
        folder = repository_folder(each)
        blobs = {file.sha256 for file in gone if file.repository == each}
        if not holds_safetensors(each):  # left by a download that stopped late
            blobs |= {partial.stem for partial in folder.glob("blobs/*.partial")}
        blobs -= {file.sha256 for file in kept if file.repository == each}
        linked = {link.resolve().name for link in folder.glob("snapshots/**/*") if link.is_symlink()}
        for name in blobs - linked:
            for blob in (folder / "blobs" / name, folder / "blobs" / f"{name}.partial"):
                with suppress(OSError):
                    blob.unlink(missing_ok=True)
        _delete_empty(folder)


def _delete_empty(folder: Path) -> None:
    """Delete a repository's folder if nothing is left in it but references and listings."""
    for where, _, _ in os.walk(folder / "snapshots", topdown=False):
        with suppress(OSError):  # not empty
            Path(where).rmdir()
    if (folder / "snapshots").exists() or (folder / RECORD_FILE).exists() or any(folder.glob("blobs/*")):
        return
    for file in (*folder.glob("refs/*"), *folder.glob("trees/*.json")):
        with suppress(OSError):
            file.unlink()
    for where, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # somebody else's files are in it
            Path(where).rmdir()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
