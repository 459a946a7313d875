"""Names and passwords, login sessions (behind a session cookie), and the protection against guessing (brute force)."""

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
"""Letters and digits that cannot be confused with one another."""
PASSWORD_GROUPS, GROUP_LENGTH = 4, 4
"""16 characters from an alphabet of 31: 79 bits."""
MAX_LOGINS = 10_000
"""Login sessions at a time. If there are more, the least recently used one of whoever has most ends."""
MAX_PASSWORD_LENGTH = 1_024
"""Characters of a password. A longer one is wrong; it is not truncated."""
MAX_FOLDED_LENGTH = 2_000
"""Characters of a name to normalize: sorting the marks after one letter takes quadratic time."""
HOUR = 3_600.0

FREE_TRIES = 5
"""Wrong passwords from one address before it must wait."""
FIRST_WAIT, MAX_WAIT = 30.0, 900.0
"""Seconds to wait after these, doubling with each further wrong password."""
NAME_TRIES = 20
"""Wrong passwords for one name, from anywhere, before each address that has failed must wait after every attempt."""
NAME_STEP, MAX_NAME_WAIT = 10, 300.0
"""That wait doubles after each further ten, up to this many seconds."""
NAME_HEAT, NAME_COOLING = 100.0, 2 / 60
"""The maximum count of wrong passwords for a name, and how many of them are forgotten per second."""
FORGET_SECONDS = 3_600.0
"""Seconds after the last wrong password of an address when its count is reset."""
MAX_ADDRESSES = 10_000
"""Addresses that have failed a few times, and as many that must wait: neither kind can evict the other. About 10 MB in all."""
MAX_NAMES, MAX_NAMES_PER_ADDRESS = 4_096, 8
"""Slots in which names are counted, each name always in the same one, so that made-up names take no memory."""
MAX_KNOWN_BROWSERS = 1_000


def make_password() -> str:
    """A password for one run of the app: easy to read aloud, and impossible to guess."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(PASSWORD_GROUPS))


class Passwords:
    """Names with salted hashes of their passwords, or one password without a name."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        """`accounts`: passwords by name; the name "" stands for anybody."""
        self._salt = secrets.token_bytes(16)
        self._people = {canonical(name): self._digest(password) for name, password in accounts.items()}
        self.named = "" not in accounts
        self.shortest = min(map(len, accounts.values()), default=MAX_PASSWORD_LENGTH)

    def knows(self, name: str) -> bool:
        """Whether somebody can log in with that name; none is needed if there is one password for everybody."""
        return self.named and canonical(name) in self._people

    def match(self, name: str, password: str) -> bool:
        """Whether the password is that of the name. Takes as long for a wrong name as for a wrong password."""
        given = self._digest(password[:MAX_PASSWORD_LENGTH])
        kept = self._people.get(canonical(name) if self.named else "")
        alike = hmac.compare_digest(given, kept or secrets.token_bytes(32))
        return alike and kept is not None and len(password) <= MAX_PASSWORD_LENGTH

    def _digest(self, password: str) -> bytes:
        return hmac.new(self._salt, password.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


@dataclass(slots=True)
class LoginSession:
    """The login of one browser; times are in seconds of the clock."""

    name: str
    since: float
    seen: float
    quota_key: str
    """Whom it counts for if there are too many: the name, or with one password for everybody, the address."""


class LoginSessions:
    """The login sessions, by the hash of the secret in the browser's cookie. They do not survive the app."""

    def __init__(self, idle_hours: float, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._longest, self._clock = idle_hours * HOUR, hours * HOUR, clock
        self._lock = threading.Lock()
        self._held: FairCache[str, LoginSession] = FairCache(MAX_LOGINS, lambda session: session.quota_key)

    def begin(self, name: str, address: str = "") -> str:
        """Begin a session after a right password; returns its secret."""
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
        """Seconds until the session of `secret` expires if there are no more requests; 0.0 if it has ended."""
        now = self._clock()
        with self._lock:
            login = self._held.get(hashed(secret))
            return max(0.0, min(login.seen + self._idle, login.since + self._longest) - now) if login else 0.0

    def end(self, secret: str) -> None:
        with self._lock:
            self._held.pop(hashed(secret), None)


def canonical(name: str) -> str:
    """The canonical form of all spellings of a name: case-folded and normalized (NFKC).

    A name that is too long is returned unchanged.
    """
    if len(name) > MAX_FOLDED_LENGTH:
        return name
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def login_of(realm: str, name: str) -> str:
    """The owner of a person's conversations; never the same in two realms, whatever the names are."""
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

    Wrong passwords of others never lock out anyone who has not failed: a guesser with many addresses is slowed down because, once
    a name has been tried often, each address has one attempt and then waits. Whoever has logged in before has a count of their
    own, by browser, which nobody else at their address can use up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = MAX_ADDRESSES) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._few: LRUCache[str, Failures] = LRUCache(kept)
        self._many: LRUCache[str, Failures] = LRUCache(kept)
        self._key = secrets.token_bytes(16)
        self._heat = [(0.0, 0.0)] * MAX_NAMES
        """By slot: the number of wrong passwords that still count, and when that was computed."""
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
        """Record a right password: wrong ones for this name are forgotten, but not those for other names."""
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
        """The browser, or else the address, from which this name has logged in before; empty if there is none."""
        clients = self._clients.get(name, ())
        return next((each for each in (browser, address) if each and each in clients), "")

    def _failures(self, who: str) -> Failures | None:
        failures = self._few.get(who) or self._many.get(who)
        return failures if failures and self._clock() - failures.last < FORGET_SECONDS else None

    def _put(self, who: str, failures: Failures) -> None:
        """Store the failures among those of similar number, of which the least recent is evicted."""
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
    """Exponential backoff: FIRST_WAIT for one failure too many, twice that for two, and so on, up to `longest`."""
    return min(longest, FIRST_WAIT * 2.0 ** min(count - 1, 30)) if count > 0 else 0.0


def _slot(key: bytes, name: str) -> int:
    """The slot in which a name is counted. Without the key, nobody can find two names with the same slot."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=4).digest()
    return int.from_bytes(digest, "big") % MAX_NAMES
