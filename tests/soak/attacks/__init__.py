"""Attacks on a shared page, each with its rate and what has to become of it; see attack.py for how to add one."""

from types import ModuleType

from tests.soak.attacks import conversations, files, logins, programs, requests
from tests.soak.attacks.attack import Attack


def in_module(module: ModuleType) -> tuple[Attack, ...]:
    """The attacks that a module defines, in their order."""
    return tuple(each for each in vars(module).values() if isinstance(each, Attack))


GROUPS = {
    each.__name__.rpartition(".")[2]: in_module(each) for each in (conversations, files, logins, programs, requests)
}
"""By module; the attackers of one are one process."""
ATTACKS = tuple(each for group in GROUPS.values() for each in group)
