"""Who may come in: names and passwords, and how long a login holds; it knows no requests."""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from magistral_ui.fairness import FairCache
from magistral_ui.sessions.login_names import canonical

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that are not taken for one another."""
PASSWORD_GROUPS, GROUP_LENGTH = 4, 4
"""16 signs of 31: 79 bits."""
MAX_LOGINS = 10_000
"""Logins that are remembered; more make room: of whoever has most of them, the one that was used least recently ends."""
MAX_PASSWORD_LENGTH = 1_024
"""Characters of a password. A longer one is nobody's: it is not cut."""
HOUR = 3_600.0


def make_password() -> str:
    """A password that is made for one run of the app: easy to read out, and far beyond guessing."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(PASSWORD_GROUPS))


class Passwords:
    """Names with their passwords, kept as salted hashes; or one password without a name."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        """`accounts`: passwords by name; the name "" stands for anybody."""
        self._salt = secrets.token_bytes(16)
        self._people = {canonical(name): self._digest(password) for name, password in accounts.items()}
        self.named = "" not in accounts
        self.shortest = min(map(len, accounts.values()), default=MAX_PASSWORD_LENGTH)

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
    """Since when somebody is in, and when they were last here, in seconds of the clock."""

    name: str
    since: float
    seen: float
    party: str
    """Whose it is among those that make room for others: where one password is everybody's, an address'."""


class LoginSessions:
    """Who is in, by the hash of the secret that their browser keeps. A login ends by itself, by its owner, or with the app."""

    def __init__(self, idle_hours: float, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._longest, self._clock = idle_hours * HOUR, hours * HOUR, clock
        self._lock = threading.Lock()
        self._held: FairCache[str, LoginSession] = FairCache(MAX_LOGINS, lambda login: login.party)

    def begin(self, name: str, address: str = "") -> str:
        """A new secret for somebody whose password was right."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._held[_hash(secret)] = LoginSession(name, now, now, canonical(name) or address)
        return secret

    def find(self, secret: str) -> LoginSession | None:
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


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
