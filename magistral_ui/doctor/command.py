"""`app.py doctor`: reads its flags, has everything checked, and prints rows and the block for an issue.

It imports nothing but the standard library and this package's texts: whatever else is broken is what it is to find.
"""

import argparse
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, NoReturn

from magistral_ui.doctor.checks import Check, Finding, run_all
from magistral_ui.doctor.checks_engine import CHECKS as ENGINE
from magistral_ui.doctor.checks_known import CHECKS as KNOWN
from magistral_ui.doctor.checks_machine import CHECKS as MACHINE
from magistral_ui.doctor.checks_storage import CHECKS as STORAGE
from magistral_ui.doctor.commands import Commands
from magistral_ui.doctor.facts import Facts, Wanted
from magistral_ui.doctor.probing import Probed, probe
from magistral_ui.doctor.report import block, exit_code, rows, summary
from magistral_ui.doctor.survey import Ask, survey
from magistral_ui.doctor.terminal import Terminal, language_of
from magistral_ui.environment import open_streams, quiet_warnings, tell
from magistral_ui.i18n.texts import text, text_in
from magistral_ui.models.gguf_plan import QUANTIZATIONS
from magistral_ui.models.memory import PRECISIONS

ALL: tuple[Check, ...] = (*MACHINE, *STORAGE, *ENGINE, *KNOWN)
DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS_KNOWN = ("auto", "float32", *PRECISIONS, *QUANTIZATIONS)
VARIABLES = {"model": str, "device": str, "precision": str, "host": str, "port": int, "data_dir": str}
PREFIX = "MAGISTRAL_UI_"

Survey = Callable[[Wanted, MutableMapping[str, str], Ask], Facts]


def run(arguments: Sequence[str], environment: MutableMapping[str, str] = os.environ, find: Survey = survey) -> int:
    """Check and print; 0: all is well, 1: something is to be mended, 2: a wrong flag."""
    open_streams()
    quiet_warnings()
    parser = _parser()
    try:
        flags = parser.parse_args(arguments)
    except _WrongFlagError as error:
        tell(text("app_doctor_bad_flag", detail=str(error)), sys.stderr)
        return 2
    if flags.list:
        tell("\n".join(check.name for check in ALL))
        return 0
    try:
        findings = _show(_wanted(flags, environment), environment, find)
    except KeyboardInterrupt:
        _progress("")
        return 130
    return exit_code(findings)


def _show(wanted: Wanted, environment: MutableMapping[str, str], find: Survey) -> dict[str, Finding]:
    language = language_of(environment, sys.stdout.encoding)
    terminal = Terminal.of(sys.stdout, environment)
    if sys.stderr.isatty():
        tell("\n".join(terminal.wrapped(text_in(language, "doctor_running"), 0)), sys.stderr)
    facts = find(wanted, environment, _probe_and_tell)
    _progress("")
    findings = run_all(ALL, facts)
    for line in rows(findings, language, terminal, max(len(check.name) for check in ALL), Commands.here()):
        tell(line.translate(terminal.plain))
    for told in (summary(findings, language, terminal.signs["fault"]), text_in(language, "doctor_paste")):
        tell("\n" + "\n".join(terminal.wrapped(told, 0)).translate(terminal.plain))
    tell(f"\n{block(findings)}".translate(terminal.plain))
    return findings


def _probe_and_tell(target: str, *arguments: Any, **values: Any) -> Probed:
    _progress(target.partition(":")[0].rpartition(".")[2].removesuffix("_probe"))
    return probe(target, *arguments, **values)


def _progress(name: str) -> None:
    """What is being looked at, for whoever watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{name:<16}\r")
        sys.stderr.flush()


class _WrongFlagError(Exception):
    """What argparse says of it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _WrongFlagError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="app.py doctor", description=text("app_doctor"), allow_abbrev=False)
    parser.add_argument("--model", metavar="NAME|PATH", help=text("flag_doctor_model"))
    parser.add_argument("--device", choices=DEVICES, help=text("flag_device").replace("%", "%%"))
    parser.add_argument("--precision", metavar="NAME", type=_precision, help=text("flag_doctor_precision"))
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help=text("flag_doctor_quick"))
    extent.add_argument("--full", action="store_true", help=text("flag_doctor_full"))
    parser.add_argument("--list", action="store_true", help=text("flag_doctor_list"))
    return parser


def _precision(value: str) -> str:
    """A precision; llama.cpp's names are taken in lower case, too. ValueError for any other."""
    known = value if value in PRECISIONS_KNOWN else value.upper()
    if known not in PRECISIONS_KNOWN:
        raise ValueError
    return known


def _wanted(flags: argparse.Namespace, environment: MutableMapping[str, str]) -> Wanted:
    """Flags over variables; a variable with an impossible value is the app's to refuse when it starts."""
    chosen: dict[str, str | int] = {}
    for name, kind in VARIABLES.items():
        given = getattr(flags, name, None) or environment.get(PREFIX + name.upper(), "").strip()
        if given and (kind is str or given.isdecimal()):
            chosen[name] = kind(given)
    return Wanted(**chosen, full=flags.full)  # type: ignore[arg-type]  # each variable has its field's type
