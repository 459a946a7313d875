"""Lets in who knows a password, and shows everybody else a page to type it; what is behind it does not know of logins."""

import asyncio
import base64
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import cache, partial
from html import escape
from importlib import resources
from math import ceil
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.errors import TooManyRequests
from magistral_ui.i18n.texts import text, text_in
from magistral_ui.json_log import log_event
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.login_names import canonical, login_of
from magistral_ui.sessions.token_buckets import TokenBuckets
from magistral_ui.sessions.visitors import hashed
from magistral_ui.web.client_address import client_of, visitors_language
from magistral_ui.web.cookies import PREFIX_KEY, cookie_name, cookie_value, outdated, read_cookies
from magistral_ui.web.error_responses import error_response, retry_headers, sentence_response
from magistral_ui.web.hf_oauth import OAUTH_CALLBACK_PATH, OAUTH_LOGIN_PATH
from magistral_ui.web.hf_oauth import OAUTH_COOKIE as SESSION
from magistral_ui.web.login_attempts import LoginAttempts
from magistral_ui.web.login_watch import ActiveLogin, ActiveLogins
from magistral_ui.web.passwords import LoginSession as KeptLogin
from magistral_ui.web.passwords import LoginSessions, Passwords
from magistral_ui.web.request_body import BodyTimeout, BodyTooLarge, read_body
from magistral_ui.web.request_guard import MCP_PATH

LOGIN_COOKIE = "magistral-ui-login"
ANYBODY = "anybody"
"""Who is in where people have no names."""
MAX_FORM_BYTES, MAX_FORM_FIELDS = 8_192, 8
PROGRAM_PATHS = (MCP_PATH, "/gradio_api/call/", "/gradio_api/info", "/config")
"""Addresses that only programs ask; the page has what they tell already."""
PUBLIC_PATHS = ("/gradio_api/startup-events", "/favicon.ico", "/robots.txt")
"""What needs no login, and tells nothing."""
TOLD_PER_MINUTE = 60
"""Lines in the log about logins, and as many about wrong passwords: a flood must not fill the disk."""
MOST_SECONDS = 90
"""A longer wait is told in minutes."""
WRONG_PASSWORD_DELAY = 0.2
"""Seconds that a wrong password waits for its answer."""


class Identity(Protocol):
    """Another way to be known than a password, such as a platform's own login."""

    def entered(self, scope: Scope) -> ActiveLogin | None:
        """Who made this request; None where that is not known."""

    def end(self, entered: ActiveLogin) -> None:
        """Believe this login no more."""


class LoginMiddleware:
    """The door itself: GET /login, POST /login, POST /logout, and everything else for those who are in.

    POST /login takes the fields that gradio_client sends for its `auth`, so programs come in by the same door. MCP clients keep
    no cookies; they send name and password with each request (RFC 7617), and only where no browser would be asked for them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        passwords: Passwords,
        limits: Limits,
        attempts: LoginAttempts | None = None,
        framed: bool = False,
        identity: Identity | None = None,
    ) -> None:
        self.app, self._passwords, self._framed, self._identity = app, passwords, framed, identity
        self._logins = LoginSessions(limits.login_idle_hours, limits.login_hours)
        self._entrances = ActiveLogins(app)
        self._attempts = LoginAttempts() if attempts is None else attempts  # one without failures is empty
        self._longest = int(limits.login_hours * 3600)
        self._lines = TokenBuckets(TOLD_PER_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request of somebody who is in on; show everybody else the page, or refuse."""
        opened = PUBLIC_PATHS if self._identity is None else (*PUBLIC_PATHS, OAUTH_LOGIN_PATH, OAUTH_CALLBACK_PATH)
        if scope["type"] != "http" or scope["path"] in opened:
            await self.app(scope, receive, send)
            return
        found = self._found(scope)
        secrets = [secret for secret, _ in found]
        path, method = scope["path"].rstrip("/"), scope["method"]
        if (path, method) == ("/login", "POST"):
            await (await self._enter(scope, receive, secrets))(scope, receive, send)
        elif (path, method) == ("/logout", "POST"):
            self._end(scope, secrets)
            await self._leave(scope)(scope, receive, send)
        elif entered := self._entered(scope, found):
            await self._entrances.serve(entered, scope, receive, send)
        elif path == MCP_PATH and (sent := sent_along(Headers(scope=scope))):
            if refused := await self._refused(scope, *sent):
                await refused(scope, receive, send)
            else:
                await self._entrances.serve(self._by_name(sent[0]), scope, receive, send)
        elif path in ("", "/login") and method in ("GET", "HEAD"):
            await self._page(scope)(scope, receive, send)
        else:
            await self._unauthenticated(scope)(scope, receive, send)

    def _found(self, scope: Scope) -> list[tuple[str, KeptLogin]]:
        """The logins that a request brings, with their secrets. Others at the domain can add cookies, but not others' logins."""
        secrets = read_cookies(Headers(scope=scope), cookie_name(LOGIN_COOKIE, scope))
        return [(secret, login) for secret in secrets if (login := self._logins.find(secret))]

    def _entered(self, scope: Scope, found: list[tuple[str, KeptLogin]]) -> ActiveLogin | None:
        if self._identity is not None and (entered := self._identity.entered(scope)):
            return entered
        if len(found) != 1:  # of two, one is somebody else's
            return None
        ((secret, login),) = found
        held = partial(self._logins.remaining, secret)
        return replace(self._by_name(login.name), key=hashed(secret), remaining=held)

    def _by_name(self, name: str) -> ActiveLogin:
        """Somebody whose password was right. Without names, what is theirs is their browser's."""
        return ActiveLogin(name, login_of("name", canonical(name))) if self._passwords.named else ActiveLogin(ANYBODY)

    def _end(self, scope: Scope, secrets: list[str]) -> None:
        """Sign the browser out, and end what it still gets."""
        if self._identity is not None and (entered := self._identity.entered(scope)):
            self._identity.end(entered)
            self._entrances.end(entered.key)
        for secret in secrets:
            self._logins.end(secret)
            self._entrances.end(hashed(secret))

    def _unauthenticated(self, scope: Scope) -> ASGIApp:
        """What somebody gets who is not in: a person reloads the page, a program has to be told how to come in."""
        if not scope["path"].startswith(PROGRAM_PATHS):
            return error_response(401, "login_needed")
        told = text("error_program_login_needed" if scope["path"] != MCP_PATH else "error_program_mcp_login")
        return sentence_response(401, told, headers=self._challenge(scope))

    def _challenge(self, scope: Scope) -> dict[str, str]:
        """What MCP clients are to send, which is how they find out; a browser that was asked so would ask its user."""
        if scope["path"] != MCP_PATH or _is_page(scope):
            return {}
        scheme = "Basic" if self._passwords.named else "Bearer"
        return {"WWW-Authenticate": f'{scheme} realm="Magistral UI"' + ', charset="UTF-8"' * self._passwords.named}

    async def _refused(self, scope: Scope, name: str, password: str) -> Response | None:
        """Why they do not let in; None where they do. Nothing is waited for before a try is counted: none slips in between."""
        caller = client_of(scope)
        tried = caller.address, canonical(name) if self._passwords.named else "", caller.browser
        try:
            self._attempts.check(*tried)
        except TooManyRequests as error:
            return self._answer(scope, 429, "too_many_logins", int(error.message.values["seconds"]), name=name)
        if self._passwords.match(name, password):
            self._attempts.succeeded(*tried)
            return None
        self._attempts.failed(*tried)
        self._note("login_failed", caller.address)
        await asyncio.sleep(WRONG_PASSWORD_DELAY)
        return self._answer(scope, 401, "login_wrong", name=name)

    async def _enter(self, scope: Scope, receive: Receive, before: list[str]) -> Response:
        """Answer a password; whoever was in by the same browser, with the secrets `before`, is so no more."""
        try:
            form = await fields(Headers(scope=scope), await read_body(scope, receive, MAX_FORM_BYTES))
        except (BodyTooLarge, BodyTimeout, ValueError, MultiPartException):
            return self._answer(scope, 400, "login_wrong")
        name, password = form.get("username", "").strip(), form.get("password", "").strip()
        if refused := await self._refused(scope, name, password):
            return refused
        self._end(scope, before)
        address = client_of(scope).address
        self._note("login", address)
        headers = {"Cache-Control": "no-store"}
        page = _is_page(scope)
        entered = RedirectResponse("./", 303, headers) if page else JSONResponse({"success": True}, headers=headers)
        secret = self._logins.begin(name if self._passwords.named else "", address)
        self._set_cookie(entered, scope, secret, self._longest)
        return entered

    def _note(self, event: str, address: str) -> None:
        if not self._lines.take(event):
            log_event(event, address=address)

    def _leave(self, scope: Scope) -> Response:
        # Without names, what was said stays its browser's; and at an address with a path, the rest is somebody else's.
        cleared = '"cache", "storage"' if self._passwords.named and not scope.get(PREFIX_KEY) else '"cache"'
        left = RedirectResponse("./", 303, {"Clear-Site-Data": cleared})
        self._set_cookie(left, scope, "", 0)
        if self._identity is not None:
            left.delete_cookie(SESSION, secure=True, httponly=True, samesite="none")
        return left

    def _set_cookie(self, response: Response, scope: Scope, secret: str, age: int) -> None:
        cookie = cookie_value(LOGIN_COOKIE, secret, scope, framed=self._framed, age=age)
        for each in (cookie, *outdated(LOGIN_COOKIE, scope, Headers(scope=scope))):
            response.headers.append("Set-Cookie", each)

    def _answer(self, scope: Scope, status: int, key: str, wait: int = 0, name: str = "") -> Response:
        key += "_minutes" if wait > MOST_SECONDS else ""
        told = text_in(visitors_language(scope).code, f"error_{key}", seconds=wait, minutes=ceil(wait / 60))
        if _is_page(scope):
            return self._page(scope, status, told, wait, name)
        return sentence_response(status, told, wait, self._challenge(scope) if status == 401 else {})

    def _page(self, scope: Scope, status: int = 200, told: str = "", wait: int = 0, name: str = "") -> Response:
        """The form, with the `name` that was typed before; one writes where something is still missing."""
        language = visitors_language(scope)

        def shown(key: str) -> str:
            return escape(text_in(language.code, key))

        named = self._passwords.named
        focus = "" if named and not name else "autofocus"
        page = _template()
        for gap, value in {
            "language": language.tag,
            "direction": language.direction,
            "title": shown("page_title"),
            "heading": shown("login_heading" if self._identity is None else "login_heading_hugging_face"),
            "shown": "" if self._identity is None else "hidden",
            "other": "" if self._identity is None else _link(shown("login_hugging_face")),
            "name_field": _name_field(shown("login_name"), name) if named else "",
            "password": shown("login_password"),
            "focus": focus,
            "described": ' aria-describedby="told"' if told else "",
            "button": shown("login_button"),
            "told": f'<p id="told" role="alert">{escape(told)}</p>' if told else "",
        }.items():
            page = page.replace("{{" + gap + "}}", value)
        return HTMLResponse(page, status, retry_headers(wait))


@cache
def _template() -> str:
    return (resources.files("magistral_ui.ui") / "assets" / "login.html").read_text(encoding="utf-8")


def _name_field(label: str, name: str) -> str:
    """It keeps what was typed; a brace there is no gap of the page."""
    typed = escape(name).replace("{", "&#123;")
    focus = "" if name else " autofocus"
    return f'<label>{label}<input name="username" value="{typed}" autocomplete="username" required{focus}></label>'


def _link(label: str) -> str:
    """A tab of its own: in the Hub's frame, the Hub's login is not shown."""
    return f'<a class="button" href="login/huggingface" target="_blank" rel="opener">{label}</a>'


async def fields(headers: Headers, body: bytes) -> dict[str, str]:
    """The fields of a form, in either way in which forms are sent: browsers and gradio_client use one, @gradio/client the other.

    Raises ValueError or MultiPartException, also where a field stands twice: another reader would take the other one.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
        parser = MultiPartParser(
            headers, _at_once(body), max_files=0, max_fields=MAX_FORM_FIELDS, max_part_size=MAX_FORM_BYTES
        )
        read = [(name, value) for name, value in (await parser.parse()).multi_items() if isinstance(value, str)]
    else:
        read = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    if len(dict(read)) < len(read):
        raise ValueError("a field stands twice")
    return dict(read)


async def _at_once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def sent_along(headers: Headers) -> tuple[str, str] | None:
    """Name and password that came with a request; a password without a name may also come as a bearer's token."""
    scheme, _, sent = headers.get("authorization", "")[:MAX_FORM_BYTES].partition(" ")
    if scheme.lower() == "bearer":
        return "", sent.strip()
    try:
        name, colon, password = base64.b64decode(sent.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name.strip(), password.strip()) if scheme.lower() == "basic" and colon else None


def _is_page(scope: Scope) -> bool:
    """Whether a browser asks, and shows what it gets."""
    return "text/html" in Headers(scope=scope).get("accept", "")
