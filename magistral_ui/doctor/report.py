"""Writes findings: rows for whoever runs the doctor, in their language, and a block in English to paste into an issue."""

import re
from collections.abc import Iterator, Mapping

from magistral_ui import __version__
from magistral_ui.doctor.checks import Finding
from magistral_ui.doctor.commands import Commands
from magistral_ui.doctor.privacy import for_issue, without_names
from magistral_ui.doctor.terminal import SIGNS, Terminal, columns
from magistral_ui.errors import Message
from magistral_ui.i18n.texts import strings, text_in

FORMAT = 1
"""Of the block; raised when what a line means changes."""
HEAD, END = f"----- magistral-ui doctor {FORMAT} -----", "-----"
MAX_VALUE = 400
"""Characters of a value in the block."""
OWN_WORDS = ("model", "folder", "host", "value", "server")
"""Values of sentences that may hold what a person wrote: they are not in the block."""
USUAL_FILE = re.compile(
    r"(?:model|consolidated)(?:-\d+-of-\d+)?\.safetensors(?:\.index\.json)?|(?:config|generation_config|params|tekken)\.json"
)
"""Files that are named so in each model."""


def sentence_of(message: Message, language: str) -> str:
    """The sentence of one of the doctor's own keys, or of an error's; the key itself where there is none."""
    known = strings(language)
    keys = (message.key, f"doctor_{message.key}", f"error_{message.key}")
    key = next((key for key in keys if key in known), None)
    return text_in(language, key, **message.values) if key else message.key


def rows(
    findings: Mapping[str, Finding], language: str, terminal: Terminal, names: int, commands: Commands | None = None
) -> Iterator[str]:
    """A finding in one or more lines: sign, name in a column of `names`, then what was found; equal ones share them.

    Remedies name `commands` as they are typed here.
    """
    commands = commands or Commands()
    for shared, finding in _grouped(findings):
        name = ", ".join(shared)
        said = [*([finding.value] if finding.value else []), *(_sentences(finding, language))]
        indent = names + 4
        told = [commands.fitted(without_names(each)) for each in said]
        lines = [line for each in told for line in terminal.wrapped(each, indent)] or [""]
        if len(shared) == 1:
            head = f"{name}{' ' * (names + 2 - columns(name))}{lines.pop(0)}"
            yield f"{terminal.sign(finding.state)} {head}".rstrip()
        else:
            first, *more = terminal.wrapped(name, 2)
            yield f"{terminal.sign(finding.state)} {first}"
            yield from (f"  {line}" for line in more)
        for line in lines:
            yield " " * indent + line


def _grouped(findings: Mapping[str, Finding]) -> Iterator[tuple[list[str], Finding]]:
    """Findings in order, with the names of all that are the same but for a value of their own."""
    groups: dict[object, tuple[list[str], Finding]] = {}
    for name, finding in findings.items():
        told = tuple((message.key, tuple(message.values.items())) for message in finding.messages)
        is_shared = bool(told) and not finding.value and finding.state in ("ok", "unchecked")
        if finding.state != "skipped":
            groups.setdefault((finding.state, told) if is_shared else name, ([], finding))[0].append(name)
    yield from groups.values()


def _sentences(finding: Finding, language: str) -> Iterator[str]:
    told = [sentence_of(message, language) for message in finding.messages]
    if finding.state == "unchecked":
        yield " ".join(told)
    else:
        yield from told


def summary(findings: Mapping[str, Finding], language: str, sign: str = SIGNS["fault"]) -> str:
    """In one sentence: how many things are to be mended, and by which `sign` they are to be found."""
    count = sum(finding.state == "fault" for finding in findings.values())
    if not count:
        return text_in(language, "doctor_all_well")
    return text_in(language, "doctor_faults", count=count).replace(SIGNS["fault"], sign)


def block(findings: Mapping[str, Finding]) -> str:
    """The text for an issue: one line for each check, with stable names, and nothing that a person wrote."""
    lines = [HEAD, f"app: {__version__}"]
    for name, finding in findings.items():
        parts: list[str] = [finding.state]
        value = finding.value if finding.shared is None else finding.shared
        if value:
            parts.append(value[:MAX_VALUE])
        parts += [_told(message) for message in finding.messages]
        lines.append(f"{name}: " + " | ".join(for_issue(part) for part in parts))
    return "\n".join([*lines, END])


def _told(message: Message) -> str:
    values = ", ".join(
        f"{name}={value!s:.400}" for name, value in message.values.items() if _is_public(message.key, name, value)
    )
    return f"{message.key} ({values})" if values else message.key


def _is_public(key: str, name: str, value: object) -> bool:
    """Whether a value of a sentence says nothing that a person wrote."""
    if name == "file":
        return USUAL_FILE.fullmatch(str(value)) is not None
    if name == "names":  # of libraries, or of somebody's files
        return key.startswith("doctor_")
    return name not in OWN_WORDS


def exit_code(findings: Mapping[str, Finding]) -> int:
    """1 if something is to be mended."""
    return int(any(finding.state == "fault" for finding in findings.values()))
