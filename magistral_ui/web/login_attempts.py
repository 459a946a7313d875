"""Slows down whoever tries passwords, and nobody else: whoever has not failed may always try; it knows no passwords."""

import hashlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from cachetools import LRUCache

from magistral_ui.errors import TooManyRequests

FREE_TRIES = 5
"""Wrong ones at once, from one address."""
FIRST_WAIT, MAX_WAIT = 30.0, 900.0
"""Seconds after the last free one, which double with each more."""
NAME_TRIES = 20
"""Wrong ones for one name, from wherever, before each that has failed for any name waits after every try."""
NAME_STEP, MAX_NAME_WAIT = 10, 300.0
"""Each so many more double that."""
NAME_HEAT, NAME_COOLING = 100.0, 2 / 60
"""The most wrong ones of a name that are remembered, and how many of them are forgotten in a second."""
FORGET_SECONDS = 3_600.0
"""Seconds after its last wrong try when an address is like new."""
MAX_ADDRESSES = 10_000
"""Addresses that have failed a few times, and as many that wait: neither can push the others out. About 10 MB together."""
MAX_NAMES, MAX_NAMES_PER_ADDRESS = 4_096, 8
"""Names are counted in so many places, each name always in the same, so that names that nobody has cost nothing."""
MAX_KNOWN_BROWSERS = 1_000
"""Browsers and addresses that are known to be of one name."""


@dataclass(slots=True)
class Failures:
    """The wrong tries of one address, or of a browser that is known."""

    last: float
    by_name: Counter[int] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """All of them."""
        return self.by_name.total()


class LoginAttempts:
    """Counts wrong passwords by address and by name. Any thread may ask.

    No wrong try of others keeps anybody out who has not failed: what slows a guesser with many addresses is that, once a name has
    been tried often, each of them has one try and then waits. Whoever was in before has a count of their own, by browser, which
    nobody else at their address can spend.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = MAX_ADDRESSES) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._few: LRUCache[str, Failures] = LRUCache(kept)
        self._many: LRUCache[str, Failures] = LRUCache(kept)
        self._key = secrets.token_bytes(16)
        self._heat = [(0.0, 0.0)] * MAX_NAMES
        """How many wrong tries a name has, and when they were counted."""
        self._friends: dict[str, LRUCache[str, None]] = {}

    def check(self, address: str, name: str = "", browser: str = "") -> None:
        """Raises TooManyRequests where there were too many wrong ones."""
        with self._lock:
            known = self._known(address, name, browser)
            failures = self._failures(known or address)
            if failures is None:
                return
            wait = _wait(failures.count - FREE_TRIES + 1, FIRST_WAIT, MAX_WAIT)
            if name and not known:
                hot = int(self._heat_of(_place(self._key, name)) - NAME_TRIES) // NAME_STEP + 1
                wait = max(wait, _wait(hot, FIRST_WAIT, MAX_NAME_WAIT))
            if (left := failures.last + wait - self._clock()) > 0:
                raise TooManyRequests("too_many_logins", seconds=ceil(left))

    def failed(self, address: str, name: str = "", browser: str = "") -> None:
        """Count a wrong one."""
        with self._lock:
            now, place = self._clock(), _place(self._key, name)
            who = self._known(address, name, browser) or address
            failures = self._failures(who) or Failures(now)
            failures.last = now
            crowded = place not in failures.by_name and len(failures.by_name) >= MAX_NAMES_PER_ADDRESS
            failures.by_name[-1 if crowded else place] += 1
            self._put(who, failures)
            self._heat[place] = min(NAME_HEAT, self._heat_of(place) + 1), now

    def succeeded(self, address: str, name: str = "", browser: str = "") -> None:
        """A right one: what was mistyped before is forgotten, but not what was tried for others."""
        with self._lock:
            who = self._known(address, name, browser) or address
            if failures := self._failures(who):
                del failures.by_name[_place(self._key, name)]
                self._put(who, failures)
            friends = self._friends.setdefault(name, LRUCache(MAX_KNOWN_BROWSERS))
            friends.update({friend: None for friend in (address, browser) if friend})

    def __len__(self) -> int:
        return len(self._few) + len(self._many)

    def _known(self, address: str, name: str, browser: str) -> str:
        """Under what somebody is counted who was in before under that name; empty where nobody was."""
        friends = self._friends.get(name, ())
        return next((each for each in (browser, address) if each and each in friends), "")

    def _failures(self, who: str) -> Failures | None:
        failures = self._few.get(who) or self._many.get(who)
        return failures if failures and self._clock() - failures.last < FORGET_SECONDS else None

    def _put(self, who: str, failures: Failures) -> None:
        """Remember it, the latest last. The oldest has to go of those that failed as often."""
        self._few.pop(who, None)
        self._many.pop(who, None)
        if not failures.count:
            return
        held = self._few if failures.count < FREE_TRIES else self._many
        held[who] = failures

    def _heat_of(self, place: int) -> float:
        heat, when = self._heat[place]
        return max(0.0, heat - (self._clock() - when) * NAME_COOLING)


def _wait(doublings: int, first: float, longest: float) -> float:
    """`first` for one, twice that for two, and so on up to `longest`; nothing for none."""
    return min(longest, first * 2.0 ** min(doublings - 1, 30)) if doublings > 0 else 0.0


def _place(key: bytes, name: str) -> int:
    """Where a name is counted. Nobody outside can find two that are counted together."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=4).digest()
    return int.from_bytes(digest, "big") % MAX_NAMES
