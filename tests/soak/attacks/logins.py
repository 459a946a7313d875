"""Attacks on who gets in: guessing under forged addresses, locking others out, planted logins, streams that outlive one."""

import base64
import secrets
import time
from itertools import count

import httpx

from tests.soak.attacks.attack import PASSWORD, Attack, Stranger, attack

numbers = count()


def guess(stranger: Stranger, forwarded: str, name: str = "visitor 1") -> str:
    """A wrong password, from where the proxy says that it comes."""
    form = {"username": name, "password": f"wrong {secrets.token_hex(4)}"}
    return str(stranger.outside.post("/login", data=form, headers=stranger.headers(forwarded)).status_code)


def forging(shape: str, last: str) -> Attack:
    """Guesses that come with another forged address each; the proxy writes the true one, of an odd shape, behind it."""

    @attack(f"guesses under forged addresses, the true one {shape}", per_minute=60, reaches=["429"], may=["401"])
    def forged(stranger: Stranger) -> str:
        return guess(stranger, f"{public_address()}, {last}")

    return forged


def public_address() -> str:
    """One that nobody had yet."""
    number = next(numbers)
    return f"151.{number // 62_500 % 250}.{number // 250 % 250}.{1 + number % 250}"


forged_private = forging("private", "10.1.2.3")
forged_port = forging("with a port", "93.184.216.34:4711")
forged_brackets = forging("of IPv6 with a port", "[2a00:1450:4001:81b::1]:4711")
forged_name = forging("no address", "unknown")


@attack("guesses from one address", per_minute=120, reaches=["429"], may=["401"])
def one_address(stranger: Stranger) -> str:
    return guess(stranger, stranger.address, f"visitor {next(numbers) % 50}")


@attack("guesses from ever new addresses, for all names", per_minute=120, reaches=["401"], may=["429"])
def ever_new_addresses(stranger: Stranger) -> str:
    return guess(stranger, public_address(), f"visitor {next(numbers) % 50}")


@attack("guesses of programs, with each request", per_minute=120, reaches=["429"], may=["401"])
def programs_guess(stranger: Stranger) -> str:
    sent = base64.b64encode(f"visitor 1:{secrets.token_hex(4)}".encode()).decode()
    headers = {"Authorization": f"Basic {sent}", "Accept": "application/json, text/event-stream"}
    return str(stranger.outside.post("/mcp", json={}, headers=headers).status_code)


@attack("logins that nobody gave", per_minute=60, reaches=["401"])
def planted(stranger: Stranger) -> str:
    name = secrets.choice(["magistral-ui-login", "__Host-magistral-ui-login", "__Secure-magistral-ui-login"])
    cookie = f"{name}={'a' * 43}; {name}={secrets.token_urlsafe(32)}"
    return str(stranger.outside.get("/config", headers={"Cookie": cookie}).status_code)


CLOSED = ["/config", "/gradio_api/info", "/magistral/live", "/mcp", "/magistral/export", "/gradio_api/queue/data"]


@attack("everything, without a login", per_minute=120, reaches=["401"])
def without_login(stranger: Stranger) -> str:
    return str(stranger.outside.get(secrets.choice(CLOSED)).status_code)


ENDING = 20.0
"""Seconds in which a stream has to end, on a machine that is busy."""


@attack("a stream that goes on behind a sign-out", per_minute=6, reaches=["ended"], may=["429"])
def outliving(stranger: Stranger) -> str:
    door = stranger.sign_in()
    with door.http.stream("GET", f"/gradio_api/heartbeat/{door.tab}", timeout=ENDING) as stream:
        if stream.status_code != 200:
            return str(stream.status_code)
        stranger.outside.post("/logout", headers={"Cookie": door.cookies()})
        until = time.monotonic() + ENDING
        try:
            for _ in stream.iter_raw():
                if time.monotonic() > until:
                    return "runs on"
        except httpx.ReadTimeout:
            return "runs on"
        except httpx.RemoteProtocolError:
            pass
    return "ended"


@attack("a right password, again and again", per_minute=30, reaches=["200"], may=["429"])
def many_logins(stranger: Stranger) -> str:
    form = {"username": stranger.name, "password": PASSWORD}
    return str(stranger.outside.post("/login", data=form).status_code)
