"""Says where the Hub's client keeps a repository on this computer; it reads and writes nothing there."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from magistral_ui.models.folder import is_repository


def hub_cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


def repository_folder(repository: str) -> Path:
    """The folder of a repository in the Hub's cache, whether or not it is there."""
    return hub_cache() / repo_folder_name(repo_id=repository, repo_type="model")


def folder_of(repository: str) -> Path | None:
    """The folder of a repository in the Hub's cache; None if there is none, or something else is in its place."""
    if not is_repository(repository):
        return None
    folder = repository_folder(repository)
    is_inside = folder.parent == hub_cache() and folder.is_dir() and not folder.is_symlink()
    return folder if is_inside else None


def repositories_with(file: str) -> Iterator[str]:
    """The repositories whose folders have this file, sorted by name."""
    for folder in sorted(hub_cache().glob("models--*--*")):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        if (folder / file).exists() and is_repository(name):
            yield name
