"""Publishes the app as a Hugging Face Space: creates it, sets its variables, and gathers, checks and uploads its files.

    python space/push.py NAME [--hardware a10g-small | --gguf] [--private] [--secret NAME …] [--dry-run]

MAGISTRAL_UI_* variables of this shell become the Space's; secret ones become its secrets and are never written to a file.
The Hub's client finds the access token as usual: HF_TOKEN, or `hf auth login`.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, from anywhere

from huggingface_hub import HfApi, SpaceHardware
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError comes from httpx or httpx2, by version
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
)

from magistral_ui.errors import BadSetting, MagistralUIError
from magistral_ui.i18n.texts import sentence, text
from magistral_ui.models.cards import MINISTRAL_3_3B
from space.card import card_for, front_of, problems_of
from space.hardware import GGUF_QUANTIZATION, find_hardware

ROOT = Path(__file__).parents[1]
PACKAGE = "magistral_ui"
SUFFIXES = (".py", ".json", ".txt", ".safetensors", ".js", ".css", ".html", ".woff2", ".png")
"""Suffixes of the package's files that the app reads."""
SKIPPED = ("__pycache__", "node_modules")
SKIPPED_WITH_GGUF = (*SKIPPED, "zerogpu")
"""Folders that a Space without torch has no use for."""
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""The index of torch without CUDA, a tenth of the size."""
MAX_FILE_BYTES = 50_000_000
"""Bytes of a file; a larger one got in by mistake."""
SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bsk-[A-Za-z0-9]{32,}")
FREE_HARDWARE = "cpu-basic"
VARIABLE_PREFIX = "MAGISTRAL_UI_"
MODEL_VARIABLE = "MAGISTRAL_UI_MODEL"
GGUF_MODEL = f"{MINISTRAL_3_3B.gguf_repositories[0]}:{GGUF_QUANTIZATION}"
"""What a Space for GGUF files runs if no model is named."""
SECRETS = ("MAGISTRAL_UI_API_KEY", "MAGISTRAL_UI_AUTH")
"""Variables that become the Space's secrets."""
LOCAL_VARIABLES = ("MAGISTRAL_UI_HOST", "MAGISTRAL_UI_PORT", "MAGISTRAL_UI_PLAN", "MAGISTRAL_UI_SHARE")
"""Variables that concern this machine only."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Publish, or list what would be published; returns 0, or 2 with a sentence on stderr."""
    try:
        options = _parser().parse_args(arguments)
        secrets = secrets_of(options.secret, environment)
        variables = {
            name: value
            for name, value in sorted(environment.items())
            if name.startswith(VARIABLE_PREFIX) and value and name not in (*SECRETS, *LOCAL_VARIABLES, *secrets)
        }
        if options.gguf:
            variables = {MODEL_VARIABLE: GGUF_MODEL, **variables}
        with tempfile.TemporaryDirectory() as made:
            if options.dry_run:
                files = gather(Path(made), options.hardware or FREE_HARDWARE, variables, gguf=options.gguf)
                print("\n".join(listing(Path(made), files, secrets, variables)))
            else:
                print(text("space_pushed", url=push(options, Path(made), secrets, variables)))
    except MagistralUIError as error:
        print(sentence(error.message), file=sys.stderr)
        return 2
    return 0


def push(options: argparse.Namespace, folder: Path, secrets: Mapping[str, str], variables: Mapping[str, str]) -> str:
    """Create the Space if it does not exist, and update it from `folder`, which is empty at first; returns its address."""
    api = HfApi()
    try:
        made = api.create_repo(
            options.name, repo_type="space", space_sdk="gradio", private=options.private, exist_ok=True
        )
        name = made.repo_id
        flavor = options.hardware or api.get_space_runtime(name).requested_hardware or FREE_HARDWARE
        gather(folder, flavor, variables, gguf=options.gguf)
        for key, value in secrets.items():
            api.add_space_secret(name, key, value)
        for key, value in variables.items():
            api.add_space_variable(name, key, value)
        api.upload_folder(
            repo_id=name,
            repo_type="space",
            folder_path=folder,
            commit_message=text("space_commit"),
            delete_patterns="*",  # so that renamed and removed files disappear there, too
        )
        if options.hardware:
            api.request_space_hardware(name, SpaceHardware(options.hardware))
    except MagistralUIError:
        raise
    except (HfHubHTTPError, HTTPError, LocalTokenNotFoundError, HFValidationError, RuntimeError, ValueError) as error:
        raise _explained(error, options.name) from error
    return str(made)


def gather(folder: Path, flavor: str, environment: Mapping[str, str], *, gguf: bool = False) -> list[Path]:
    """Write the files of a Space on the hardware `flavor` to the empty `folder`; returns their relative paths.

    `gguf`: without torch, for a GGUF file. Raises BadSetting if the files must not be uploaded, or cannot run there.
    """
    if gguf and not _is_cpu(flavor):
        raise BadSetting("space_gguf_needs_cpu", value=flavor)
    for file in _package_files(SKIPPED_WITH_GGUF if gguf else SKIPPED):
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    card = (ROOT / "space" / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card_for(card, flavor, environment, gguf=gguf), encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(flavor, gguf=gguf), encoding="utf-8")
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    check(folder, files)
    return files


def requirements(flavor: str, *, gguf: bool = False) -> str:
    """All requirements in one file; without a GPU, torch without CUDA, and for GGUF files no torch."""
    first = "requirements-gguf.txt" if gguf else "requirements.txt"
    lines = [*_lines_of(first), *_lines_of("space/requirements.txt")]
    if _is_cpu(flavor) and not gguf:
        lines.insert(0, f"--extra-index-url {CPU_WHEELS}\n")
    return "".join(lines)


def _is_cpu(flavor: str) -> bool:
    hardware = find_hardware(flavor)
    return hardware is not None and hardware.place.type == "cpu"


def _lines_of(name: str) -> Iterator[str]:
    """The lines of a file of requirements, and of those that it includes."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("-r "):
            yield from _lines_of(line.removeprefix("-r ").strip())
        else:
            yield line


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


def _package_files(skipped: Sequence[str]) -> Iterator[Path]:
    yield ROOT / "app.py"
    yield ROOT / "LICENSE"
    for file in sorted((ROOT / PACKAGE).rglob("*")):
        inside = file.relative_to(ROOT).parts
        hidden = any(part in skipped or part.startswith(".") for part in inside)
        if file.is_file() and not hidden and file.suffix in SUFFIXES:
            yield file


def secrets_of(named: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The secrets that are set, and those named on the command line; BadSetting for one of these that is not set."""
    for name in named:
        if not environment.get(name):
            raise BadSetting("space_secret_missing", name=name)
    return {name: environment[name] for name in (*SECRETS, *named) if environment.get(name)}


def listing(folder: Path, files: Sequence[Path], secrets: Mapping[str, str], variables: Mapping[str, str]) -> list[str]:
    """What would be uploaded: each file with its bytes, the total, the variables with their values, the secrets without."""
    sizes = [(folder / file).stat().st_size for file in files]
    lines = [f"{size:>12,}  {file.as_posix()}" for size, file in zip(sizes, files, strict=True)]
    lines.append(text("space_total", count=len(files), size=f"{sum(sizes):,}"))
    lines += [text("space_variable", name=name, value=value) for name, value in variables.items()]
    return [*lines, *(text("space_secret", name=name) for name in secrets)]


def _explained(error: Exception, name: str) -> BadSetting:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return BadSetting("space_token_missing")
    if status in (402, 403):
        return BadSetting("space_not_allowed", name=name, detail=_first_line(error))
    if isinstance(error, HFValidationError):
        return BadSetting("space_name_wrong", name=name)
    return BadSetting("space_not_pushed", name=name, detail=_first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="space/push.py", description=text("space_description"), allow_abbrev=False)
    flavors: Any = [each.value for each in SpaceHardware]
    parser.add_argument("name", metavar="NAME", help=text("space_name"))
    parser.add_argument("--hardware", choices=flavors, metavar="FLAVOR", help=text("space_hardware"))
    parser.add_argument("--gguf", action="store_true", help=text("space_gguf"))
    parser.add_argument("--private", action="store_true", help=text("space_private"))
    parser.add_argument("--secret", action="append", default=[], metavar="NAME", help=text("space_secrets"))
    parser.add_argument("--dry-run", action="store_true", help=text("space_dry_run"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
