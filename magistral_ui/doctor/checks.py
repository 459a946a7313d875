"""What a check is, and how all of them are run: each looks at the facts, and none can end the doctor. It knows no check."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from magistral_ui.doctor.facts import Facts, Part
from magistral_ui.errors import Message, first_line

log = logging.getLogger(__name__)

State = Literal["ok", "note", "fault", "unchecked", "skipped"]
"""A `note` is worth knowing, a `fault` is to be mended; what is `skipped` does not apply, and is not shown."""
ABSENT = Message("doctor_absent")
MENDED = Message("doctor_mended")
UNCHECKED = Message("doctor_unchecked")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    state: State
    value: str = ""
    """Names and numbers, the same in every language."""
    messages: tuple[Message, ...] = ()
    """Sentences: what it means, and the remedy."""
    shared: str | None = None
    """The value without what a person may have chosen, for an issue; None: there is nothing like that in it."""


class PartMissing(LookupError):
    """A part of the facts that a check needs after all is not known."""


def known_part(facts: Facts, kind: type[Part], name: str) -> Part:
    """The part `name` of the facts; raises PartMissing."""
    found = getattr(facts, name)
    if not isinstance(found, kind):
        raise PartMissing(name)
    return found


@dataclass(frozen=True, slots=True)
class Check:
    """One check; its `name` never changes, so that reports can be compared."""

    name: str
    judge: Callable[[Facts], Finding]
    needs: str = ""
    """The part of the facts without which it cannot be run."""
    known: bool = False
    """Whether it looks for a known fault of libraries or machines, whose absence is told, too."""

    def run(self, facts: Facts) -> Finding:
        """The finding; where the check itself breaks, that it could not be checked."""
        if self.needs and getattr(facts, self.needs) is None:
            return self._without(facts, self.needs)
        try:
            return self.judge(facts)
        except PartMissing as error:
            return self._without(facts, str(error))
        except Exception as error:
            log.debug("a check failed", exc_info=error)
            reason = f"{type(error).__name__}: {first_line(error)}"
            return Finding("unchecked", messages=(UNCHECKED, Message("doctor_reason_error", {"error": reason})))

    def _without(self, facts: Facts, part: str) -> Finding:
        failure = facts.failures.get(part)
        if failure is not None:
            return Finding("unchecked", messages=(UNCHECKED, failure))
        return Finding("ok", messages=(ABSENT,)) if self.known else Finding("skipped")


def run_all(checks: Sequence[Check], facts: Facts) -> dict[str, Finding]:
    """All findings by name, in order."""
    return {check.name: check.run(facts) for check in checks}


def fault(key: str, /, value: str = "", **values: str | int | float) -> Finding:
    return Finding("fault", value, (Message(key, values),))


def note(key: str, /, value: str = "", **values: str | int | float) -> Finding:
    return Finding("note", value, (Message(key, values),))


def ok(value: str = "", *messages: Message) -> Finding:
    return Finding("ok", value, messages)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"


def gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f}"
