"""Groups the GGUF files of a repository by quantization, from their names and sizes; it reads no file and asks no Hub."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a repository on the Hub."""

    name: str
    """Its path in the repository."""
    size: int


@dataclass(frozen=True, slots=True)
class Quantization:
    """A model in one quantization: a file, or all parts over which it is split."""

    label: str
    """As after the colon in `owner/repo:Q4_K_M`: the suffix of the file's name as it is written there. For other models in the
    same repository, and files without a suffix, the whole name."""
    files: tuple[ListedFile, ...]
    """In order; llama.cpp is given the first."""

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class GGUFListing:
    """The GGUF files of a repository."""

    quantizations: tuple[Quantization, ...]
    """The largest first."""
    mmproj: tuple[ListedFile, ...]
    """Projectors by their names, the one to prefer first."""

    def find(self, label: str) -> Quantization | None:
        """The quantization of that label; case does not matter."""
        wanted = label.casefold()
        return next((each for each in self.quantizations if each.label.casefold() == wanted), None)


def list_gguf(repository: str, files: Iterable[ListedFile]) -> GGUFListing:
    """What GGUF files there are among `files`; those with a name that no file may have are left out."""
    raise NotImplementedError


def split_name(model: str) -> tuple[str, str]:
    """`owner/repo:Q4_K_M` as the repository and the label, which is empty where none is named."""
    repository, _, label = model.partition(":")
    return repository, label
