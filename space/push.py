"""Publishes the app as a Hugging Face Space: creates it, sets its variables and uploads what gathering.py gathers.

    python space/push.py NAME [--hardware a10g-small] [--private] [--secret NAME …] [--dry-run]

MAGISTRAL_UI_* variables of this shell become the Space's; secret ones become its secrets and are never written to a file.
The Hub's client finds the access token as usual: HF_TOKEN, or `hf auth login`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
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
from space.gathering import gather

FREE_HARDWARE = "cpu-basic"
VARIABLE_PREFIX = "MAGISTRAL_UI_"
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
        with tempfile.TemporaryDirectory() as made:
            if options.dry_run:
                files = gather(Path(made), options.hardware or FREE_HARDWARE, variables)
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
        gather(folder, options.hardware or api.get_space_runtime(name).requested_hardware or FREE_HARDWARE, variables)
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
    parser.add_argument("--private", action="store_true", help=text("space_private"))
    parser.add_argument("--secret", action="append", default=[], metavar="NAME", help=text("space_secrets"))
    parser.add_argument("--dry-run", action="store_true", help=text("space_dry_run"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
