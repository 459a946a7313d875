"""Names, writes and reads the page's own cookies, so that no neighbour at the same domain can plant one."""

import re
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import Scope

PREFIX_KEY = "magistral.prefix"
"""Where client_address.py puts the path below which the page was requested."""
COOKIE_VALUE = re.compile(r"[\w.~-]{16,128}", re.ASCII)
"""The value of a cookie of ours."""
MAX_COOKIES = 8
"""Cookies of one name that are looked at."""


def cookie_name(name: str, scope: Scope) -> str:
    """What the cookie `name` is called where `scope` asks. A browser takes a `__Host-` cookie only from this very host, over TLS
    and for the path /; a `__Secure-` one, which may be for a path, over TLS at least (RFC 6265bis)."""
    if scope["scheme"] != "https":
        return name
    return f"__Secure-{name}" if scope.get(PREFIX_KEY) else f"__Host-{name}"


def cookie_value(name: str, value: str, scope: Scope, *, framed: bool = False, age: int | None = None) -> str:
    """A Set-Cookie header for the page that `scope` asks: not for other sites, other paths at its host, or scripts.

    `framed`: also sent where the page stands in the frame of another.
    """
    return f"{cookie_name(name, scope)}={value}; {_attributes(scope, framed, age)}"


def outdated(name: str, scope: Scope, headers: Headers) -> list[str]:
    """A Set-Cookie header that deletes the cookie with the page's older, weaker name, which is not read any more."""
    if scope["scheme"] != "https" or not any(cookies(headers, name)):
        return []
    return [f"{name}=; {_attributes(scope, framed=False, age=0)}"]


def read_cookie(headers: Headers, name: str) -> str:
    """The cookie's value, or nothing. Others may have set one of the same name; of two that could be ours, neither counts."""
    found = read_cookies(headers, name)
    return found[0] if len(found) == 1 else ""


def read_cookies(headers: Headers, name: str) -> list[str]:
    """All values of that name that could be ours, each once."""
    return list(dict.fromkeys(value for value in cookies(headers, name) if COOKIE_VALUE.fullmatch(value)))[:MAX_COOKIES]


def cookies(headers: Headers, name: str) -> Iterator[str]:
    """All values of the cookies of that name, however odd the others beside them are.

    Only blanks and tabs are stripped (RFC 6265): with a no-break space before it, a browser does not guard `__Host-`.
    """
    for line in headers.getlist("cookie"):
        for pair in line.split(";"):
            key, _, value = pair.partition("=")
            if key.strip(" \t") == name:
                yield value.strip(" \t")


def _attributes(scope: Scope, framed: bool, age: int | None) -> str:
    secure, prefix = scope["scheme"] == "https", scope.get(PREFIX_KEY, "")
    kept = f"; Max-Age={age}" if age is not None else ""
    where = "; SameSite=None; Secure; Partitioned" if framed and secure else "; SameSite=Lax" + "; Secure" * secure
    return f"Path={prefix}/; HttpOnly{where}{kept}"
