"""Groups the GGUF files of a repository by quantization, from their names and sizes; it reads no file and asks no Hub."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PATH_LENGTH = 1_000
"""Characters of a file's path in a repository."""
_QUANTIZATION = r"((?:(?:UD|i1)[-_])?(?:I?Q\d\w{0,20}|TQ\d_\d|BF16|FP?16|FP?32|MXFP4(?:_MOE)?))"
_LABEL = re.compile(_QUANTIZATION, re.ASCII | re.IGNORECASE)
_SUFFIX = re.compile(rf"(?:^|[-._ ]){_QUANTIZATION}$", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"-(\d{5})-of-(\d{5})$", re.ASCII)
_MMPROJ = re.compile(r"(?:^|[-._ ])mmproj(?:[-._ ]|$)", re.ASCII | re.IGNORECASE)
_IMATRIX = re.compile(r"imatrix", re.IGNORECASE)
_MMPROJ_TYPES = ("bf16", "f16", "fp16", "f32", "fp32")
"""Types of projectors in order of preference: they are small, and the vision towers are published in bfloat16."""


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
    is_main: bool = True
    """Whether it is of the model that the repository is for, not of another one in it."""

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
    """The GGUF files among `files`, grouped. Unsafe names, importance matrices and models that lack a part are left out."""
    found = [file for file in files if file.name.casefold().endswith(".gguf") and is_safe_path(file.name)]
    models = _models([file for file in found if not _MMPROJ.search(_stem(file)) and not _IMATRIX.search(_stem(file))])
    main = _main_base([_split_stem(stem)[0] for stem in models], repository)
    labelled: dict[str, Quantization] = {}
    for stem, parts in sorted(models.items(), key=lambda each: (each[1][0].name.count("/"), each[0])):
        base, suffix = _split_stem(stem)
        is_main = base.casefold() == main
        label = suffix if suffix and is_main else stem
        labelled.setdefault(label.casefold(), Quantization(label, parts, is_main))
    quantizations = sorted(labelled.values(), key=lambda each: -each.bytes)
    mmproj = sorted((file for file in found if _MMPROJ.search(_stem(file))), key=_mmproj_rank)
    return GGUFListing(tuple(quantizations), tuple(mmproj))


def split_name(model: str) -> tuple[str, str]:
    """`owner/repo:Q4_K_M` as the repository and the label, which is empty where none is named."""
    repository, _, label = model.partition(":")
    return repository, label


def is_quantization(label: str) -> bool:
    """Whether `label` has the form of a quantization's name, as `UD-Q4_K_XL`."""
    return _LABEL.fullmatch(label) is not None


def is_safe_path(name: str) -> bool:
    """Whether a path in a repository stays within a folder, on every system, and can be shown."""
    parts = name.split("/")
    return len(name) <= MAX_PATH_LENGTH and name.isprintable() and not any(map(_is_unsafe, parts))


def _is_unsafe(part: str) -> bool:
    return not part.strip(". ") or bool(set(part) & set('\\:*?"<>|'))


def _stem(file: ListedFile) -> str:
    return file.name.rpartition("/")[2][: -len(".gguf")]


def _split_stem(stem: str) -> tuple[str, str]:
    """A name's base and the quantization after it, which may be empty."""
    found = _SUFFIX.search(stem)
    return (stem[: found.start()], found[1]) if found else (stem, "")


def _models(files: list[ListedFile]) -> dict[str, tuple[ListedFile, ...]]:
    """Complete models by their names without a part's number; where a name occurs twice, the one that is less deep."""
    whole: dict[str, tuple[ListedFile, ...]] = {}
    parts: dict[tuple[str, str, int], dict[int, ListedFile]] = {}
    for file in sorted(files, key=lambda each: (each.name.count("/"), each.name)):
        stem, folder = _stem(file), file.name.rpartition("/")[0]
        if found := _PART.search(stem):
            parts.setdefault((stem[: found.start()], folder, int(found[2])), {})[int(found[1])] = file
        else:
            whole.setdefault(stem, (file,))
    for (stem, _, count), numbered in parts.items():
        if len(numbered) == count and set(numbered) == set(range(1, count + 1)):
            whole.setdefault(stem, tuple(numbered[number] for number in sorted(numbered)))
    return whole


def _main_base(bases: list[str], repository: str) -> str:
    """The name of the repository's main model: the one with the most quantizations, or else the one named like it."""
    counts = Counter(base.casefold() for base in bases)
    own = repository.rpartition("/")[2].casefold()
    return max(counts, key=lambda base: (counts[base], bool(base) and base in own, base), default="")


def _mmproj_rank(file: ListedFile) -> tuple[int, int, str]:
    words = re.split(r"[-._ ]", _stem(file).casefold())
    rank = next((rank for rank, type in enumerate(_MMPROJ_TYPES) if type in words), len(_MMPROJ_TYPES))
    return rank, file.name.count("/"), file.name
