"""Reads flags and MAGISTRAL_UI_* variables into one frozen Settings; only app.py reads it, and it opens nothing."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from magistral_ui import __version__
from magistral_ui.errors import BadSetting
from magistral_ui.ui.i18n import text

PREFIX = "MAGISTRAL_UI_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chose; None and `auto` leave the choice to the machine."""

    model: str | None = None
    """A card's key, a repository, or a folder."""
    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "auto"
    precision: str = "auto"
    context: int | None = None
    """Tokens of prompt and reply together."""
    threads: int | None = None
    """CPU threads that the model may use."""
    revision: str | None = None
    """Commit, tag or branch of the repository; None: the one that was tried, or the newest."""
    save_quantized: str | None = None
    """A folder for a quantized copy, which is read instead the next time."""
    plan: bool = False
    """Print what fits where, and end."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag, `--name`, and its variable; its help is the text `flag_<name>`."""

    name: str
    metavar: str
    read: Callable[[str], str | int]
    """The value in its own type; ValueError for an impossible one."""
    switch: bool = False
    """Whether the flag alone means yes."""

    @property
    def option(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable that stands for the flag."""
        return PREFIX + self.name.upper()


def _words(value: str) -> str:
    if not value.strip():
        raise ValueError
    return value.strip()


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        number = int(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


def _yes_or_no(value: str) -> bool:
    return bool(("no", "yes").index(value))


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError
        return value

    return read


DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "nf4", "int8")
FLAGS = (
    Flag("model", "NAME|PATH", _words),
    Flag("host", "ADDRESS", _words),
    Flag("port", "1..65535", _whole(1, 65_535)),
    Flag("device", "|".join(DEVICES), _one_of(*DEVICES)),
    Flag("precision", "|".join(PRECISIONS), _one_of(*PRECISIONS)),
    Flag("context", "TOKENS", _whole(256, 1_048_576)),
    Flag("threads", "N", _whole(1, 1_024)),
    Flag("revision", "NAME", _words),
    Flag("save_quantized", "FOLDER", _words),
    Flag("plan", "yes|no", _yes_or_no, switch=True),
)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Flags over variables over defaults. Raises BadSetting; `--help` and `--version` print and exit with 0."""
    flags = vars(_parser().parse_args(arguments))
    chosen: dict[str, str | int] = {}
    for flag in FLAGS:
        given, name = flags[flag.name], flag.option
        if given is None:
            given, name = environment.get(flag.variable) or None, flag.variable
        if given is None:
            continue
        try:
            chosen[flag.name] = flag.read(given)
        except ValueError as error:
            raise BadSetting(name=name, value=given, expected=flag.metavar) from error
    return Settings(**chosen)  # type: ignore[arg-type]  # each flag reads its field's own type


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadSetting("bad_flag", detail=message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="app.py",
        description=text("app_description"),
        epilog=text("app_variables", prefix=PREFIX),
        allow_abbrev=False,
        argument_default=None,
    )
    defaults = Settings()
    for flag in FLAGS:
        default = getattr(defaults, flag.name)
        help_text = text(f"flag_{flag.name}")
        if default is not None and not flag.switch:
            help_text += f" [{default}]"
        once: dict[str, str] = {"nargs": "?", "const": "yes"} if flag.switch else {}
        parser.add_argument(
            flag.option,
            dest=flag.name,
            metavar=flag.metavar,
            help=help_text.replace("%", "%%"),
            **once,  # type: ignore[arg-type]
        )
    parser.add_argument("--version", action="version", version=__version__, help=text("flag_version"))
    return parser
