"""Who may come in: names and passwords, how often they may be tried, and how long a login holds; it knows no requests."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

from magistral_ui.errors import TooManyRequests
from magistral_ui.sessions.login_names import canonical
from magistral_ui.sessions.rates import Rate

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that are not taken for one another."""
GROUPS, LETTERS = 4, 4
"""16 signs of 31: 79 bits."""
TRIES, TRIES_PER_MINUTE = 5, 2.0
"""Wrong passwords from one address: so many at once, then so many a minute."""
TRIES_IN_ALL, TRIES_IN_ALL_PER_MINUTE = 200, 60.0
"""The same for everybody together, against a guess from many addresses."""
LOGINS = 10_000
"""Logins that are remembered; the one that was used least recently ends first."""
LONGEST = 1_024
HOUR = 3_600.0


def make_password() -> str:
    """A password that is made for one run of the app: easy to read out, and far beyond guessing."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(LETTERS)) for _ in range(GROUPS))


class Passwords:
    """Names with their passwords, kept as salted hashes; or one password without a name."""

    def __init__(self, people: Mapping[str, str]) -> None:
        """`people`: passwords by name; the name "" stands for anybody."""
        self._salt = secrets.token_bytes(16)
        self._people = {canonical(name): self._digest(password) for name, password in people.items()}
        self.named = "" not in people

    def match(self, name: str, password: str) -> bool:
        """Whether they belong together. Takes as long for a wrong name as for a wrong password."""
        given = self._digest(password[:LONGEST])
        kept = self._people.get(canonical(name) if self.named else "")
        return hmac.compare_digest(given, kept or secrets.token_bytes(32)) and kept is not None

    def _digest(self, password: str) -> bytes:
        return hmac.new(self._salt, password.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


class Attempts:
    """Slows down whoever tries passwords."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._each = Rate(TRIES_PER_MINUTE, TRIES, clock)
        self._all = Rate(TRIES_IN_ALL_PER_MINUTE, TRIES_IN_ALL, clock)

    def check(self, address: str) -> None:
        """Raises TooManyRequests where there were too many wrong ones."""
        if wait := self._each.wait(address) or self._all.wait("all"):
            raise TooManyRequests("too_many_logins", seconds=ceil(wait))

    def failed(self, address: str) -> None:
        """Count a wrong one."""
        self._each.owe(address, 1)
        self._all.owe("all", 1)

    def succeeded(self, address: str) -> None:
        """A right one: the address may mistype again."""
        self._each.clear(address)


@dataclass(slots=True)
class Login:
    """Since when somebody is in, and when they were last here, in seconds of the clock."""

    name: str
    since: float
    seen: float


class Logins:
    """Who is in, by the hash of the secret that their browser keeps. A login ends by itself, by its owner, or with the app."""

    def __init__(self, idle_hours: float, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._longest, self._clock = idle_hours * HOUR, hours * HOUR, clock
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, Login] = OrderedDict()

    def begin(self, name: str) -> str:
        """A new secret for somebody whose password was right."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._held[_hash(secret)] = Login(name, now, now)
            if len(self._held) > LOGINS:
                self._held.popitem(last=False)
        return secret

    def find(self, secret: str) -> Login | None:
        """The login of `secret`, if it still holds."""
        if not secret:
            return None
        key, now = _hash(secret), self._clock()
        with self._lock:
            login = self._held.get(key)
            if login is None:
                return None
            if now - login.seen > self._idle or now - login.since > self._longest:
                del self._held[key]
                return None
            login.seen = now
            self._held.move_to_end(key)
            return login

    def remaining(self, secret: str) -> float:
        """Seconds until the login of `secret` ends by itself, if nobody asks for anything; 0.0 where it has."""
        now = self._clock()
        with self._lock:
            login = self._held.get(_hash(secret))
            return max(0.0, min(login.seen + self._idle, login.since + self._longest) - now) if login else 0.0

    def end(self, secret: str) -> None:
        """Log out."""
        with self._lock:
            self._held.pop(_hash(secret), None)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
