"""Names and passwords, login sessions (what a session cookie stands for), and how guessing is slowed down."""

import hashlib
import hmac
import secrets
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil

from cachetools import LRUCache

from magistral_ui.client import hashed
from magistral_ui.errors import TooManyRequests
from magistral_ui.fairness import FairCache

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that cannot be mistaken for one another."""
PASSWORD_GROUPS, GROUP_LENGTH = 4, 4
"""16 characters from an alphabet of 31: 79 bits."""
MAX_LOGINS = 10_000
"""Sessions at once. When there are more, one of whoever has most of them ends, the least recently used."""
MAX_PASSWORD_LENGTH = 1_024
"""Characters of a password. A longer one is never right, rather than cut."""
MAX_FOLDED_LENGTH = 2_000
"""Characters of a name whose forms are joined: sorting the marks behind one letter takes the square of their number."""
HOUR = 3_600.0

FREE_TRIES = 5
"""Wrong passwords from one address before it has to wait."""
FIRST_WAIT, MAX_WAIT = 30.0, 900.0
"""Seconds to wait after these, which double with each further one."""
NAME_TRIES = 20
"""Wrong passwords for one name, from anywhere, before each address that has failed waits after every try."""
NAME_STEP, MAX_NAME_WAIT = 10, 300.0
"""After each further ten, that wait doubles."""
NAME_HEAT, NAME_COOLING = 100.0, 2 / 60
"""The most wrong passwords that are counted for a name, and how many of them are forgotten in a second."""
FORGET_SECONDS = 3_600.0
"""Seconds after its last wrong password when an address starts afresh."""
MAX_ADDRESSES = 10_000
"""Addresses that have failed a few times, and as many that wait: neither can displace the others. About 10 MB together."""
MAX_NAMES, MAX_NAMES_PER_ADDRESS = 4_096, 8
"""Slots in which names are counted, each name always in the same one, so that names that nobody has cost nothing."""
MAX_KNOWN_BROWSERS = 1_000


def make_password() -> str:
    """A password for one run of the app: easy to read out, and far beyond guessing."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(PASSWORD_GROUPS))


class Passwords:
    """Names with their passwords, kept as salted hashes; or one password without a name."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        """`accounts`: passwords by name; the name "" stands for anybody."""
        self._salt = secrets.token_bytes(16)
        self._people = {canonical(name): self._digest(password) for name, password in accounts.items()}
        self.named = "" not in accounts
        self.shortest = min(map(len, accounts.values()), default=MAX_PASSWORD_LENGTH)

    def knows(self, name: str) -> bool:
        """Whether somebody can log in with that name; none is needed where one password is everybody's."""
        return self.named and canonical(name) in self._people

    def match(self, name: str, password: str) -> bool:
        """Whether they belong together. Takes as long for a wrong name as for a wrong password."""
        given = self._digest(password[:MAX_PASSWORD_LENGTH])
        kept = self._people.get(canonical(name) if self.named else "")
        alike = hmac.compare_digest(given, kept or secrets.token_bytes(32))
        return alike and kept is not None and len(password) <= MAX_PASSWORD_LENGTH

    def _digest(self, password: str) -> bytes:
        return hmac.new(self._salt, password.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


@dataclass(slots=True)
class LoginSession:
    """One browser that is logged in; times are in seconds of the clock."""

    name: str
    since: float
    seen: float
    quota_key: str
    """Whose share it counts in when there are too many: its person's, or, where one password is everybody's, its address'."""


class LoginSessions:
    """The sessions, by the hash of the secret in the browser's cookie. One expires, is ended, or ends with the app."""

    def __init__(self, idle_hours: float, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._longest, self._clock = idle_hours * HOUR, hours * HOUR, clock
        self._lock = threading.Lock()
        self._held: FairCache[str, LoginSession] = FairCache(MAX_LOGINS, lambda session: session.quota_key)

    def begin(self, name: str, address: str = "") -> str:
        """A new session for somebody whose password was right; its secret."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._held[hashed(secret)] = LoginSession(name, now, now, canonical(name) or address)
        return secret

    def find(self, secret: str) -> LoginSession | None:
        if not secret:
            return None
        key, now = hashed(secret), self._clock()
        with self._lock:
            login = self._held.get(key)
            if login is None:
                return None
            if now - login.seen > self._idle or now - login.since > self._longest:
                del self._held[key]
                return None
            login.seen = now
            return login

    def remaining(self, secret: str) -> float:
        """Seconds until the session of `secret` expires if there are no more requests; 0.0 where it has ended."""
        now = self._clock()
        with self._lock:
            login = self._held.get(hashed(secret))
            return max(0.0, min(login.seen + self._idle, login.since + self._longest) - now) if login else 0.0

    def end(self, secret: str) -> None:
        with self._lock:
            self._held.pop(hashed(secret), None)


def canonical(name: str) -> str:
    """One form for all spellings of a name: without case, and with one form of each letter (NFC, NFD, full width).

    A name that is too long stays as it is.
    """
    if len(name) > MAX_FOLDED_LENGTH:
        return name
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def login_of(realm: str, name: str) -> str:
    """The owner of what belongs to a person; never the same in two realms, whatever the names are."""
    return "name-" + hashed(f"{realm}\0{name}")


@dataclass(slots=True)
class Failures:
    """The wrong passwords of one address, or of a known browser."""

    last: float
    by_name: Counter[int] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.by_name.total()


class LoginAttempts:
    """Counts wrong passwords by address and by name. Any thread may ask.

    No wrong password of others keeps out anybody who has not failed: what slows a guesser with many addresses is that, once a
    name has been tried often, each of them has one try and then waits. Whoever has logged in before has a count of their own, by
    browser, which nobody else at their address can use up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = MAX_ADDRESSES) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._few: LRUCache[str, Failures] = LRUCache(kept)
        self._many: LRUCache[str, Failures] = LRUCache(kept)
        self._key = secrets.token_bytes(16)
        self._heat = [(0.0, 0.0)] * MAX_NAMES
        """By slot: the wrong passwords that still count, and when they were counted."""
        self._clients: dict[str, LRUCache[str, None]] = {}

    def check(self, address: str, name: str = "", browser: str = "") -> None:
        with self._lock:
            known = self._known(address, name, browser)
            failures = self._failures(known or address)
            if failures is None:
                return
            wait = _wait(failures.count - FREE_TRIES + 1, MAX_WAIT)
            if name and not known:
                hot = int(self._heat_of(_slot(self._key, name)) - NAME_TRIES) // NAME_STEP + 1
                wait = max(wait, _wait(hot, MAX_NAME_WAIT))
            if (left := failures.last + wait - self._clock()) > 0:
                raise TooManyRequests("too_many_logins", seconds=ceil(left))

    def failed(self, address: str, name: str = "", browser: str = "") -> None:
        with self._lock:
            now, slot = self._clock(), _slot(self._key, name)
            who = self._known(address, name, browser) or address
            failures = self._failures(who) or Failures(now)
            failures.last = now
            crowded = slot not in failures.by_name and len(failures.by_name) >= MAX_NAMES_PER_ADDRESS
            failures.by_name[-1 if crowded else slot] += 1
            self._put(who, failures)
            self._heat[slot] = min(NAME_HEAT, self._heat_of(slot) + 1), now

    def succeeded(self, address: str, name: str = "", browser: str = "") -> None:
        """Note a right password: what was mistyped for this name is forgotten, but not what was tried for others."""
        with self._lock:
            who = self._known(address, name, browser) or address
            if failures := self._failures(who):
                del failures.by_name[_slot(self._key, name)]
                self._put(who, failures)
            clients = self._clients.setdefault(name, LRUCache(MAX_KNOWN_BROWSERS))
            clients.update({client: None for client in (address, browser) if client})

    def __len__(self) -> int:
        return len(self._few) + len(self._many)

    def _known(self, address: str, name: str, browser: str) -> str:
        """The browser, or else the address, from which this name has logged in before; empty where neither has."""
        clients = self._clients.get(name, ())
        return next((each for each in (browser, address) if each and each in clients), "")

    def _failures(self, who: str) -> Failures | None:
        failures = self._few.get(who) or self._many.get(who)
        return failures if failures and self._clock() - failures.last < FORGET_SECONDS else None

    def _put(self, who: str, failures: Failures) -> None:
        """Remember it. The least recent of those that failed as often makes room."""
        self._few.pop(who, None)
        self._many.pop(who, None)
        if not failures.count:
            return
        held = self._few if failures.count < FREE_TRIES else self._many
        held[who] = failures

    def _heat_of(self, slot: int) -> float:
        heat, when = self._heat[slot]
        return max(0.0, heat - (self._clock() - when) * NAME_COOLING)


def _wait(count: int, longest: float) -> float:
    """FIRST_WAIT for one too many, twice that for two, and so on up to `longest`; nothing for none."""
    return min(longest, FIRST_WAIT * 2.0 ** min(count - 1, 30)) if count > 0 else 0.0


def _slot(key: bytes, name: str) -> int:
    """The slot in which a name is counted. Nobody outside can find two names of one slot."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=4).digest()
    return int.from_bytes(digest, "big") % MAX_NAMES
