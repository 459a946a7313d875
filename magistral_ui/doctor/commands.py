"""Makes the commands in remedies work as they stand: for the Python that runs this, and from the folder that somebody is in."""

import os
import re
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from magistral_ui.doctor.terminal import NO_BREAK

ROOT = Path(__file__).parents[2]
FILE = r"requirements[\w-]*\.txt"
ARGUMENT = rf"--?[a-z][a-z-]*|\"[^\"]+\"|https?://[\w./-]*\w|{FILE}|[\w-]+==[\w.+*]*[\w*]|xllamacpp\b"
ONE = rf"(?:\bpython -m ensurepip --upgrade|\bpip uninstall -y [\w-]+|\bpip install(?: (?:{ARGUMENT}))+)"
COMMAND = re.compile(rf"{ONE}(?:; {ONE})*")
"""The commands that remedies name; what comes behind them in a sentence is not of them."""


@dataclass(frozen=True, slots=True)
class Commands:
    """How commands are written here."""

    python: str = "python"
    """This Python, as the shell takes it."""
    folder: str = ""
    """The app's, with a separator; empty from within it."""
    windows: bool = False

    @staticmethod
    def here() -> "Commands":
        is_windows = os.name == "nt"
        folder = _typed(ROOT, is_windows)
        folder = "" if folder == "." else f"{folder}{os.sep}"
        python = _typed(Path(sys.executable), is_windows) if sys.executable else "python"
        if not re.search(r"[/\\]", python):
            python = f".{os.sep}{python}"
        if _is_for_others():
            place = f"{folder}.venv"
            python = f"{python} -m venv {place} " + (
                f"; {place}\\Scripts\\python" if is_windows else f"&& {place}/bin/python"
            )
        return Commands(python, folder, is_windows)

    def fitted(self, text: str) -> str:
        """`text` with commands that can be copied: whole in one line, and for this Python."""
        text = COMMAND.sub(self._whole, text)
        return text.replace(".venv/bin/python)", ".venv\\Scripts\\python)") if self.windows else text

    def _whole(self, found: re.Match[str]) -> str:
        commands = re.sub(FILE, lambda file: f"{self.folder}{file[0]}", found[0]).split("; ")
        whole = "; ".join(f"{self.python} -m {command.removeprefix('python -m ')}" for command in commands)
        return whole.replace(" ", NO_BREAK)


def _is_for_others() -> bool:
    """Whether this is no environment of the app's: a Python that other programs use, or that the system keeps from pip."""
    if sys.prefix != sys.base_prefix or (Path(sys.prefix) / "conda-meta").is_dir():
        return False
    return find_spec("gradio") is None or (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").is_file()


def _typed(path: Path, is_windows: bool) -> str:
    """`path` as it is typed here: below this folder or the home folder where it is there, its blanks told to the shell."""
    shown = str(path)
    with suppress(OSError, RuntimeError, ValueError):
        if path.is_relative_to(Path.cwd()):
            shown = str(path.relative_to(Path.cwd()))
        elif not is_windows and path.is_relative_to(Path.home()):
            shown = f"~/{path.relative_to(Path.home())}"
    if is_windows:
        return f'& "{shown}"' if " " in shown else shown  # as PowerShell takes it
    return re.sub(r"[^\w./~+:@%,=-]", lambda sign: f"\\{sign[0]}", shown)
