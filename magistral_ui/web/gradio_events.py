"""Checks the body of each call of a program, and whose the sessions, calls and files are, before Gradio serves it."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.web.error_responses import error_response, not_found
from magistral_ui.web.queued_calls import QueuedCalls, TooManyCalls
from magistral_ui.web.rate_limit import RETRY_AFTER_SECONDS
from magistral_ui.web.request_body import MAX_MCP_BYTES, REFUSED_BODIES, JsonBodies, replayed
from magistral_ui.web.request_guard import MCP_PATH
from magistral_ui.web.uploads import Ownership

SESSION_HASH = re.compile(r"[\w-]{1,64}")
EVENT_FIELDS = {"data", "fn_index", "session_hash", "event_data", "trigger_id", "event_id", "simple_format", "batched"}
QUEUE_PATH, CALL_PATH = "/gradio_api/queue/join", "/gradio_api/call/"
MESSAGES_PATH = "/gradio_api/queue/data"
CONTROL_PATHS = ("/gradio_api/cancel", "/gradio_api/reset")
MAX_CONTROL_BYTES = 4_096


class NotOwned(Exception):
    """An id that belongs to somebody else, or to nobody."""


@dataclass(frozen=True, slots=True)
class ApiFunction:
    """One of Gradio's functions, for programs or for the login button: how many values it takes, and from which components."""

    name: str
    values: int
    triggers: frozenset[int]


class GradioEventsMiddleware:
    """Checks bodies, and the owners of what they name: sessions, calls, uploaded files."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        listeners: Mapping[int, ApiFunction],
        ownership: Ownership,
        calls: QueuedCalls,
        folder: str,
        bodies: JsonBodies,
    ) -> None:
        """`listeners` by Gradio's numbers; uploads are in `folder`."""
        self.app, self._listeners, self._ownership = app, listeners, ownership
        self._calls, self._bodies = calls, bodies
        self._folder = os.path.abspath(folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._bodies.counted(receive) as counted:
            await self._let_in(scope, receive, counted, send)

    async def _let_in(self, scope: Scope, receive: Receive, counted: Receive, send: Send) -> None:
        """The same; bodies are read from `counted`, which is `receive` within the caller's quotas."""
        path, session = scope["path"].rstrip("/"), ""
        try:
            if scope["method"] == "POST" and _is_checked(path):
                _, sent = await self._bodies.read(scope, counted, MAX_CONTROL_BYTES if path in CONTROL_PATHS else None)
                value = self._checked(path, sent)
                session, checked = str(value.get("session_hash", "")), json.dumps(value).encode("ascii")
                scope, receive = _with_length(scope, len(checked)), replayed(checked, receive)
            elif scope["method"] == "POST" and path == MCP_PATH:
                body, sent = await self._bodies.read(scope, counted, MAX_MCP_BYTES)
                self._check_paths(sent)
                receive = replayed(body, receive)
            else:
                self._check_owner(scope)
        except REFUSED_BODIES as error:
            await self._bodies.refusal(error)(scope, receive, send)
        except NotOwned:
            await not_found()(scope, receive, send)
        else:
            await self._hand_on(path, session, scope, receive, send)

    async def _hand_on(self, path: str, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a valid request on, and note calls and who reads their answers; `session` is that of a call, if it has one."""
        method = scope["method"]
        if method == "POST" and (path == QUEUE_PATH or path.startswith(CALL_PATH)):
            try:
                with self._calls.place() as begun:
                    await self.app(scope, receive, self._listening(send, session, begun))
            except TooManyCalls as error:
                status, key = (503, "overloaded") if error.full else (429, "too_many_requests")
                await error_response(status, key, wait=RETRY_AFTER_SECONDS, seconds=RETRY_AFTER_SECONDS)(
                    scope, receive, send
                )
        elif method == "GET" and (path == MESSAGES_PATH or path.startswith(CALL_PATH)):
            session = _session_read(path, scope)
            if not self._calls.is_known(session):
                await not_found()(scope, receive, send)
                return
            with self._calls.reading(session):
                await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _check_owner(self, scope: Scope) -> None:
        """A session's messages, a call's answer and an upload's progress are for the browser that began them."""
        path, query = scope["path"], parse_qs(scope["query_string"].decode("latin-1"))
        session = _session_read(path, scope) if path == MESSAGES_PATH else ""
        if path.startswith("/gradio_api/heartbeat/"):
            session = path.rpartition("/")[2]
        if session or path == MESSAGES_PATH:
            self._check_session(session)
        if path.startswith(CALL_PATH):
            self._check_call(path.rpartition("/")[2])
        if upload := query.get("upload_id", [""])[0]:
            self._check_id("progress", upload)

    def _check_session(self, session: object) -> None:
        if not isinstance(session, str) or not SESSION_HASH.fullmatch(session):
            raise ValueError
        self._check_id("session", session)

    def _check_id(self, kind: str, id: str) -> None:
        if not self._ownership.claim(kind, id):
            raise NotOwned

    def _check_call(self, id: str) -> None:
        if not self._ownership.owns("call", id):
            raise NotOwned

    def _checked(self, path: str, body: object) -> dict[str, Any]:
        if not isinstance(body, dict) or not set(body) <= EVENT_FIELDS:
            raise ValueError
        if body.get("session_hash") is not None or not path.startswith(CALL_PATH):
            self._check_session(body.get("session_hash"))
        if path in CONTROL_PATHS:
            if not isinstance(body.get("event_id", ""), str) or not isinstance(body.get("fn_index", 0), int | None):
                raise ValueError
            if body.get("event_id"):
                self._check_call(body["event_id"])
            return body
        listener = self._listener(path, body)
        data = body.get("data")
        if not isinstance(data, list) or len(data) > listener.values:
            raise ValueError
        happened = body.get("event_data")
        if happened is not None and not isinstance(happened, dict):
            raise ValueError
        # Values that a program leaves out have defaults; Gradio would refuse the call, and log all that was sent.
        values = [self._file_checked(each) for each in data] + [None] * (listener.values - len(data))
        if path.startswith(CALL_PATH):  # without a session, so that the reply comes under the call's own id only
            return {"data": values}
        kept = {name: body.get(name) for name in ("session_hash", "fn_index", "trigger_id")}
        return {**kept, "data": values, "event_data": happened}

    def _listener(self, path: str, body: dict[str, Any]) -> ApiFunction:
        if path.startswith(CALL_PATH):
            for each in self._listeners.values():
                if each.name == path.removeprefix(CALL_PATH):
                    return each
            raise NotOwned
        number, trigger = body.get("fn_index"), body.get("trigger_id")
        listener = self._listeners.get(number) if isinstance(number, int) and not isinstance(number, bool) else None
        if listener is None:
            raise NotOwned
        if trigger is not None and (not isinstance(trigger, int) or trigger not in listener.triggers):
            raise ValueError
        return listener

    def _file_checked(self, value: Any) -> Any:
        """`value`, with None for all files but the caller's own uploads, and without URLs."""
        if isinstance(value, list):
            return [self._file_checked(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "path" in value or "url" in value or "meta" in value:
            path = value.get("path")
            if not isinstance(path, str) or not self._ownership.owns("file", path):
                return None  # as if it were missing; a program gets a sentence
            value = {name: each for name, each in value.items() if name not in ("url", "is_stream")}
        return {name: self._file_checked(each) for name, each in value.items()}

    def _check_paths(self, value: object) -> None:
        """Raises NotOwned if a text is the path of somebody else's upload: the MCP tool accepts paths as images."""
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                self._check_paths(each)
        elif isinstance(value, str) and self._is_upload(value) and not self._ownership.owns("file", value):
            raise NotOwned

    def _is_upload(self, text: str) -> bool:
        return len(text) < 1_000 and os.path.abspath(text).startswith(self._folder + os.sep)

    def _listening(self, send: Send, session: str, begun: Callable[[str], None]) -> Send:
        """Remember who began the call and in which session; a call without one is its own session."""

        async def heard(message: Message) -> None:
            if message["type"] == "http.response.body" and message.get("body", b"").startswith(b'{"event_id"'):
                id = str(json.loads(message["body"])["event_id"])
                self._ownership.share("call", id)
                if not session:
                    self._ownership.share("session", id)
                begun(session or id)
            await send(message)

        return heard


def _session_read(path: str, scope: Scope) -> str:
    """The session whose messages are read; a call of the plain interface is its own session."""
    if path != MESSAGES_PATH:
        return path.rpartition("/")[2]
    named = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])
    return str(named[0])


def _is_checked(path: str) -> bool:
    return path in (QUEUE_PATH, *CONTROL_PATHS) or path.startswith(CALL_PATH)


def _with_length(scope: Scope, length: int) -> Scope:
    kept = [each for each in scope["headers"] if each[0] not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}
