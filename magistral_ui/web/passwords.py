"""Names and passwords, and the sessions of those who are logged in; it knows no requests."""

import hashlib
import hmac
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from magistral_ui.client import hashed
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
        """The session of `secret`, if it has not expired."""
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
        """End the session of `secret`."""
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
    whole = f"{realm}\0{name}".encode("utf-8", "surrogatepass")
    return "name-" + hashlib.sha256(whole).hexdigest()
