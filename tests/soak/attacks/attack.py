"""What an attack is, and who makes it: somebody at an address of their own behind the operator's proxy; not what each does."""

import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import httpx

from tests.soak.page_client import PageClient

PUBLIC = "chat.example.org"
"""The page's name at the proxy, whose part is played here: it says who asks, and that they came by TLS."""
PASSWORD = "right horse battery"
SILENCE = 20.0
"""Seconds in which an answer has to come, on a machine that is busy."""
T = TypeVar("T")


@dataclass(frozen=True)
class Attack:
    """One way to do harm, how often a minute it is tried, and what has to become of it."""

    name: str
    strike: Callable[["Stranger"], str]
    """Tries it once; a word for what became of it, or the status of the answer."""
    per_minute: float
    at_once: int
    """How many tries may be on their way together."""
    reaches: frozenset[str]
    """Outcomes of which one has to be seen: it came as far as it is meant to, and no further."""
    may: frozenset[str]
    """Outcomes that are right, too: limits that hold before it gets there."""

    def attempt(self, stranger: "Stranger") -> str:
        """Try it; a connection that ends without an answer is an outcome as well."""
        try:
            return self.strike(stranger)
        except httpx.HTTPStatusError as error:
            return str(error.response.status_code)
        except (httpx.TimeoutException, TimeoutError):
            return "silence"
        except (httpx.TransportError, OSError):
            return "cut"


def attack(
    name: str,
    *,
    per_minute: float,
    reaches: Iterable[str],
    may: Iterable[str] = (),
    at_once: int = 1,
) -> Callable[[Callable[["Stranger"], str]], Attack]:
    """Makes an attack of a function that tries it once."""
    return lambda strike: Attack(name, strike, per_minute, at_once, frozenset(reaches), frozenset(may))


class Stranger:
    """Who makes one attack. What a try needs is made once and kept for the next."""

    def __init__(self, url: str, number: int) -> None:
        """`number` gives name and address."""
        self.url, self.name, self.address = (
            url,
            f"stranger {number}",
            f"93.184.{100 + number // 200}.{1 + number % 200}",
        )
        self._lock, self._kept = threading.RLock(), dict[str, Any]()
        self._doors: list[PageClient] = []
        self.lines: list[socket.socket] = []
        """Connections that are kept from one try to the next."""

    def headers(self, forwarded: str = "") -> dict[str, str]:
        """What the proxy adds to a request, for somebody at this address or with `forwarded` for all that it says of it."""
        return {"Host": PUBLIC, "X-Forwarded-Proto": "https", "X-Forwarded-For": forwarded or self.address}

    @cached_property
    def outside(self) -> httpx.Client:
        """Who has not signed in, and keeps no cookies."""
        return httpx.Client(base_url=self.url, headers=self.headers(), timeout=SILENCE, trust_env=False)

    def sign_in(self, name: str = "") -> PageClient:
        """One more browser of somebody who is in, with an empty conversation."""
        door = PageClient(self.url, headers=self.headers(), login=(name or self.name, PASSWORD))
        self._doors.append(door)
        door.act("turns/new_chat")
        return door

    @property
    def door(self) -> PageClient:
        """A browser of this stranger's."""
        return self.once("door", self.sign_in)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gave the first time."""
        with self._lock:
            if name not in self._kept:
                self._kept[name] = make()
            kept: T = self._kept[name]
            return kept

    def post(self, path: str, **more: Any) -> httpx.Response:
        """A request of the browser that is in."""
        return self.door.http.post(path, **more)

    def line(self, received_bytes: int = 0) -> socket.socket:
        """A connection to write anything into; the system takes in about so many bytes of what nobody reads, or what it likes."""
        target, line = httpx.URL(self.url), socket.socket()
        if received_bytes:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received_bytes)
        line.settimeout(SILENCE)
        line.connect((target.host, target.port or 80))
        return line

    def head(self, request: str, **headers: str) -> bytes:
        """The beginning of a request as it goes over a line, with who asks and, where they are in, their cookies."""
        cookies = "; ".join(f"{each.name}={each.value}" for each in self.door.http.cookies.jar)
        named = {**self.headers(), "Cookie": cookies, **headers}
        return (f"{request} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in named.items()) + "\r\n").encode()

    def close(self) -> None:
        """Leave."""
        for each in (*self._doors, *self.lines):
            each.close()
        self.outside.close()


def status_on(line: socket.socket) -> str:
    """The status that an answer begins with; `cut` where the connection ended."""
    with line:
        begun = line.recv(64)
    return begun[9:12].decode() if begun.startswith(b"HTTP/1.") else "cut"
