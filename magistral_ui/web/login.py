"""Asks for a password, and passes on only the requests of logged-in clients; the inner layers need not know about logins."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from math import ceil

from jinja2 import Environment, PackageLoader, Template
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.client import hashed
from magistral_ui.errors import TooManyRequests
from magistral_ui.fairness import TokenBuckets
from magistral_ui.i18n.texts import text, text_in
from magistral_ui.json_log import log_event
from magistral_ui.sessions.limits import Limits
from magistral_ui.web.client_address import (
    PREFIX_KEY,
    client_of,
    cookie_name,
    cookie_value,
    outdated,
    read_cookies,
    visitors_language,
)
from magistral_ui.web.error_responses import error_response, retry_headers, sentence_response
from magistral_ui.web.hf_oauth import OAUTH_COOKIE, HuggingFaceLogin
from magistral_ui.web.login_watch import ActiveLogin, OpenRequests
from magistral_ui.web.passwords import LoginAttempts, LoginSession, LoginSessions, Passwords, canonical, login_of
from magistral_ui.web.request_body import BodyTimeout, BodyTooLarge, read_body, replayed
from magistral_ui.web.request_guard import MCP_PATH, OAUTH_CALLBACK_PATH, OAUTH_LOGIN_PATH

LOGIN_COOKIE = "magistral-ui-login"
MAX_FORM_BYTES, MAX_FORM_FIELDS = 8_192, 8
PROGRAM_PATHS = (MCP_PATH, "/gradio_api/call/", "/gradio_api/info", "/config")
"""Paths that only programs request; the page does not need them."""
PUBLIC_PATHS = ("/gradio_api/startup-events", "/favicon.ico", "/robots.txt")
"""Paths that need no login and reveal nothing."""
MAX_LOGGED_PER_MINUTE = 60
"""Log lines about logins, and as many about wrong passwords: a flood must not fill the disk."""
MAX_WAIT_IN_SECONDS = 90
"""A longer wait is given in minutes."""
WRONG_PASSWORD_DELAY = 0.2


class LoginMiddleware:
    """Serves GET /login, POST /login and POST /logout, and passes on the requests of logged-in clients.

    POST /login accepts the fields that gradio_client sends for its `auth`, so programs log in the same way. MCP clients keep
    no cookies; they send name and password with each request (RFC 7617), which is possible only for the MCP server.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        passwords: Passwords,
        limits: Limits,
        attempts: LoginAttempts | None = None,
        framed: bool = False,
        identity: HuggingFaceLogin | None = None,
        admins: frozenset[str] = frozenset(),
    ) -> None:
        """`admins` are canonical names."""
        self.app, self._passwords, self._framed, self._identity = app, passwords, framed, identity
        self._public = PUBLIC_PATHS if identity is None else (*PUBLIC_PATHS, OAUTH_LOGIN_PATH, OAUTH_CALLBACK_PATH)
        self._admins = admins
        self._sessions = LoginSessions(limits.login_idle_hours, limits.login_hours)
        self._requests = OpenRequests(app)
        self._attempts = LoginAttempts() if attempts is None else attempts  # one without failures is empty
        self._cookie_age = int(limits.login_hours * 3600)
        self._lines = TokenBuckets(MAX_LOGGED_PER_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in self._public:
            await self.app(scope, receive, send)
            return
        sessions = self._sessions_of(scope)
        path, method = scope["path"].rstrip("/"), scope["method"]
        if (path, method) == ("/login", "POST"):
            await (await self._sign_in(scope, receive, sessions))(scope, receive, send)
        elif (path, method) == ("/logout", "POST"):
            self._end(scope, sessions)
            await self._sign_out(scope)(scope, receive, send)
        elif login := self._active_login(scope, sessions):
            if scope["path"] == "/login" and method in ("GET", "HEAD"):  # such as a tab that a browser restores
                await RedirectResponse("./", 303, {"Cache-Control": "no-store"})(scope, receive, send)
                return
            await self._requests.serve(login, scope, receive, send)
        elif path == MCP_PATH and (sent := credentials_in(Headers(scope=scope))):
            if refusal := await self._refusal(scope, *sent):
                await refusal(scope, receive, send)
            else:
                await self._requests.serve(self._login_of(sent[0]), scope, receive, send)
        elif path in ("", "/login") and method in ("GET", "HEAD"):
            await self._page(scope)(scope, receive, send)
        else:
            await self._unauthenticated(scope)(scope, receive, send)

    def _sessions_of(self, scope: Scope) -> dict[str, LoginSession]:
        """The sessions of a request's cookies, by secret. Other sites on the domain can add cookies, but not valid ones."""
        secrets = read_cookies(Headers(scope=scope), cookie_name(LOGIN_COOKIE, scope))
        return {secret: session for secret in secrets if (session := self._sessions.find(secret))}

    def _active_login(self, scope: Scope, sessions: Mapping[str, LoginSession]) -> ActiveLogin | None:
        if self._identity is not None and (login := self._identity.active_login(scope)):
            return login
        if len(sessions) != 1:  # if there are two, one is somebody else's
            return None
        ((secret, session),) = sessions.items()
        remaining = partial(self._sessions.remaining, secret)
        return replace(self._login_of(session.name), key=hashed(secret), remaining=remaining)

    def _login_of(self, name: str) -> ActiveLogin:
        """The login of somebody whose password was right. Without names, conversations belong to the browser."""
        if not self._passwords.named:
            return ActiveLogin()
        return ActiveLogin(login_of("name", canonical(name)), admin=canonical(name) in self._admins)

    def _end(self, scope: Scope, sessions: Mapping[str, LoginSession]) -> None:
        if self._identity is not None and (login := self._identity.active_login(scope)):
            self._identity.end(login)
            self._requests.end(login.key)
        for secret in sessions:
            self._sessions.end(secret)
            self._requests.end(hashed(secret))

    def _unauthenticated(self, scope: Scope) -> ASGIApp:
        """The response without a login: people reload the page, programs must be told how to log in."""
        if not scope["path"].startswith(PROGRAM_PATHS):
            return error_response(401, "login_needed")
        sentence = text("error_program_login_needed" if scope["path"] != MCP_PATH else "error_program_mcp_login")
        return sentence_response(401, sentence, headers=self._challenge(scope))

    def _challenge(self, scope: Scope) -> dict[str, str]:
        """The challenge for MCP clients; a browser would react to it with a dialog of its own."""
        if scope["path"] != MCP_PATH or _wants_page(scope):
            return {}
        scheme = "Basic" if self._passwords.named else "Bearer"
        return {"WWW-Authenticate": f'{scheme} realm="Magistral UI"' + ', charset="UTF-8"' * self._passwords.named}

    async def _refusal(self, scope: Scope, name: str, password: str) -> Response | None:
        """Why the password is refused, or None. Nothing is awaited before an attempt is counted, so every one counts."""
        client = client_of(scope)
        tried = client.address, canonical(name) if self._passwords.named else "", client.browser
        try:
            self._attempts.check(*tried)
        except TooManyRequests as error:
            return self._answer(scope, 429, "too_many_logins", int(error.message.values["seconds"]), name=name)
        if self._passwords.match(name, password):
            self._attempts.succeeded(*tried)
            return None
        self._attempts.failed(*tried)
        self._log("login_failed", client.address)
        await asyncio.sleep(WRONG_PASSWORD_DELAY)
        return self._answer(scope, 401, "login_wrong", name=name)

    async def _sign_in(self, scope: Scope, receive: Receive, before: Mapping[str, LoginSession]) -> Response:
        """Respond to a password; the previous sessions of the same browser, `before`, end."""
        try:
            form = await read_form(scope, receive)
        except (BodyTooLarge, BodyTimeout, ValueError, MultiPartException):
            return self._answer(scope, 400, "login_wrong")
        name, password = form.get("username", "").strip(), form.get("password", "").strip()
        if refusal := await self._refusal(scope, name, password):
            return refusal
        self._end(scope, before)
        address = client_of(scope).address
        self._log("login", address)
        headers = {"Cache-Control": "no-store"}
        answer: Response = JSONResponse({"success": True}, headers=headers)
        if _wants_page(scope):
            answer = RedirectResponse("./", 303, headers)
        secret = self._sessions.begin(name if self._passwords.named else "", address)
        self._set_cookie(answer, scope, secret, self._cookie_age)
        return answer

    def _log(self, event: str, address: str) -> None:
        if not self._lines.take(event):
            log_event(event, address=address)

    def _sign_out(self, scope: Scope) -> Response:
        # Without names, conversations stay the browser's; below a path prefix, the rest of the site is somebody else's.
        cleared = '"cache", "storage"' if self._passwords.named and not scope.get(PREFIX_KEY) else '"cache"'
        answer = RedirectResponse("./", 303, {"Clear-Site-Data": cleared})
        self._set_cookie(answer, scope, "", 0)
        if self._identity is not None:
            answer.delete_cookie(OAUTH_COOKIE, secure=True, httponly=True, samesite="none")
        return answer

    def _set_cookie(self, response: Response, scope: Scope, secret: str, age: int) -> None:
        cookie = cookie_value(LOGIN_COOKIE, secret, scope, framed=self._framed, age=age)
        for each in (cookie, *outdated(LOGIN_COOKIE, scope, Headers(scope=scope))):
            response.headers.append("Set-Cookie", each)

    def _answer(self, scope: Scope, status: int, key: str, wait: int = 0, name: str = "") -> Response:
        key += "_minutes" if wait > MAX_WAIT_IN_SECONDS else ""
        sentence = text_in(visitors_language(scope).code, f"error_{key}", seconds=wait, minutes=ceil(wait / 60))
        if _wants_page(scope):
            return self._page(scope, status, sentence, wait, name)
        return sentence_response(status, sentence, wait, self._challenge(scope) if status == 401 else {})

    def _page(self, scope: Scope, status: int = 200, sentence: str = "", wait: int = 0, name: str = "") -> Response:
        """The login form, with the `name` that was typed before; the first empty field has the focus."""
        language = visitors_language(scope)
        page = _template().render(
            language=language,
            text=partial(text_in, language.code),
            named=self._passwords.named,
            hugging_face=self._identity is not None,
            name=name,
            told=sentence,
        )
        return HTMLResponse(page, status, retry_headers(wait))


@cache
def _template() -> Template:
    pages = Environment(loader=PackageLoader("magistral_ui.ui", "assets"), autoescape=True, trim_blocks=True)
    return pages.get_template("login.html")


async def read_form(scope: Scope, receive: Receive) -> dict[str, str]:
    """The fields of a form in either encoding: browsers and gradio_client use one, @gradio/client the other.

    Raises ValueError or MultiPartException, also for a duplicate field, of which another reader might take the other value.
    """
    body = replayed(await read_body(scope, receive, MAX_FORM_BYTES), receive)
    form = await Request(scope, body).form(max_files=0, max_fields=MAX_FORM_FIELDS, max_part_size=MAX_FORM_BYTES)
    if len(form) < len(form.multi_items()):
        raise ValueError("duplicate field")
    return {name: value for name, value in form.items() if isinstance(value, str)}


def credentials_in(headers: Headers) -> tuple[str, str] | None:
    """Name and password in the Authorization header; a password without a name may also be a bearer token."""
    scheme, _, sent = headers.get("authorization", "")[:MAX_FORM_BYTES].partition(" ")
    if scheme.lower() == "bearer":
        return "", sent.strip()
    try:
        name, colon, password = base64.b64decode(sent.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name.strip(), password.strip()) if scheme.lower() == "basic" and colon else None


def _wants_page(scope: Scope) -> bool:
    """Whether a browser will show the response as a page."""
    return "text/html" in Headers(scope=scope).get("accept", "")
