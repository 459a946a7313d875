"""Gathers the files of a Space in one folder, and checks for what must not be uploaded; push.py uploads them."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from magistral_ui.errors import BadSetting
from space.card import card_for, front_of, problems_of
from space.hardware import find_hardware

ROOT = Path(__file__).parents[1]
PACKAGE = "magistral_ui"
SUFFIXES = (".py", ".json", ".txt", ".safetensors", ".js", ".css", ".html", ".woff2", ".png")
"""Suffixes of the package's files that the app reads."""
SKIPPED = ("__pycache__", "node_modules")
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""The index of torch without CUDA, a tenth of the size."""
MAX_FILE_BYTES = 50_000_000
"""Bytes of a file; a larger one got in by mistake."""
SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bsk-[A-Za-z0-9]{32,}")


def gather(folder: Path, flavor: str, environment: Mapping[str, str]) -> list[Path]:
    """Write the files of a Space on the hardware `flavor` to the empty `folder`; returns their relative paths.

    Raises BadSetting if they must not be uploaded.
    """
    for file in _package_files():
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    card = (ROOT / "space" / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card_for(card, flavor, environment), encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(flavor), encoding="utf-8")
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    check(folder, files)
    return files


def requirements(flavor: str) -> str:
    """All requirements in one file; without a GPU, torch without CUDA."""
    parts = [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "space/requirements.txt")]
    if (hardware := find_hardware(flavor)) is not None and hardware.place.type == "cpu":
        parts.insert(0, f"--extra-index-url {CPU_WHEELS}\n")
    return "".join(parts)


def check(folder: Path, files: list[Path]) -> None:
    """Raise BadSetting for what the Hub would reject, what would not start, and secrets."""
    front = front_of((folder / "README.md").read_text(encoding="utf-8"))
    if problems := problems_of(front):
        raise BadSetting("space_card_wrong", detail="; ".join(problems))
    if not (folder / str(front["app_file"])).is_file():
        raise BadSetting("space_card_wrong", detail=f"app_file: {front['app_file']}")
    pinned = re.search(r"^gradio==([\d.]+)", (folder / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if pinned is None or not f"{front['sdk_version']}.".startswith(pinned[1]):
        raise BadSetting("space_card_wrong", detail=f"sdk_version: {front['sdk_version']}")
    for file in files:
        content = (folder / file).read_bytes()
        if len(content) > MAX_FILE_BYTES:
            raise BadSetting("space_file_too_large", name=str(file), limit=MAX_FILE_BYTES // 10**6)
        if SECRET.search(content):
            raise BadSetting("space_file_secret", name=str(file))


def _package_files() -> Iterator[Path]:
    yield ROOT / "app.py"
    yield ROOT / "LICENSE"
    for file in sorted((ROOT / PACKAGE).rglob("*")):
        inside = file.relative_to(ROOT).parts
        hidden = any(part in SKIPPED or part.startswith(".") for part in inside)
        if file.is_file() and not hidden and file.suffix in SUFFIXES:
            yield file
