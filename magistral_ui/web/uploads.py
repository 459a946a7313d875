"""Limits the size of uploads, and records which browser owns which file, session and call; it does not read the files."""

import asyncio
import json
import math
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.client import CLIENT
from magistral_ui.fairness import FairCache
from magistral_ui.sessions.limits import Limits
from magistral_ui.web.error_responses import error_response, not_found
from magistral_ui.web.rate_limit import ByteQuota, QuotaExceeded
from magistral_ui.web.request_body import MAX_MCP_BYTES, BodyTimeout, BodyTooLarge, bounded, check_length
from magistral_ui.web.request_guard import FILE_PATH, MCP_PATH

UPLOAD_PATH, IMPORT_PATH = "/gradio_api/upload", "/magistral/import"
FORM_OVERHEAD_BYTES = 65_536
EXTRA_BYTES_PER_FILE = 100_000
"""Bytes that a file takes in addition to its own: a folder, a block on the disk, and the record of its owner."""
UNFINISHED_SECONDS = 3_600.0
"""The age in seconds at which a partial file counts as abandoned."""
MIN_FREE_BYTES = 512 * 2**20

MAX_OWNED_IDS = 50_000
MAX_OWNERS = 1_000
"""Owners of one id; beyond that, the earliest one loses it."""
Id = tuple[str, str]


class TooManyParts(Exception):
    """A form with more parts than the page sends."""


BODY_ERRORS = (QuotaExceeded, TooManyParts, BodyTooLarge, BodyTimeout)


class Ownership:
    """Ids by kind, with the browsers that own them; beyond the limit, the address that has most loses its oldest one."""

    def __init__(self, kept: int = MAX_OWNED_IDS) -> None:
        self._kept, self._lock = kept, threading.Lock()
        self._owners: dict[Id, dict[str, None]] = {}
        """The browsers that own an id, the most recent user last."""
        self._addresses: FairCache[tuple[Id, str], str] = FairCache(math.inf, lambda address: address)
        """The address from which a browser used an id last."""

    def claim(self, kind: str, id: str) -> bool:
        """Whether the caller owns the id; an id without an owner becomes the caller's."""
        browser = CLIENT.get().browser
        with self._lock:
            owners = self._owners.get((kind, id))
            if owners and browser not in owners:
                return False
            self._use((kind, id), browser)
            return True

    def share(self, kind: str, id: str) -> None:
        """Make the caller one of the id's owners: two visitors may have sent the same file."""
        with self._lock:
            self._use((kind, id), CLIENT.get().browser)
            owners = self._owners[(kind, id)]
            if len(owners) > MAX_OWNERS:
                self._forget((kind, id), next(iter(owners)))

    def owns(self, kind: str, id: str) -> bool:
        with self._lock:
            return CLIENT.get().browser in self._owners.get((kind, id), ())

    def _use(self, id: Id, browser: str) -> None:
        """Record that the browser, an owner of the id, has used it. With the lock held."""
        if browser in self._owners.get(id, ()):
            self._forget(id, browser)
        self._owners.setdefault(id, {})[browser] = None
        self._addresses[(id, browser)] = CLIENT.get().address
        if len(self._addresses) > self._kept:
            (surplus, whose), _ = self._addresses.popitem()
            self._disown(surplus, whose)

    def _forget(self, id: Id, browser: str) -> None:
        del self._addresses[(id, browser)]
        self._disown(id, browser)

    def _disown(self, id: Id, browser: str) -> None:
        del self._owners[id][browser]
        if not self._owners[id]:
            del self._owners[id]


class UploadsMiddleware:
    """Limits the bytes of a form (max upload size) and of an hour, and records which browser sent which file."""

    def __init__(self, app: ASGIApp, *, ownership: Ownership, limits: Limits, folder: Path, hourly: ByteQuota) -> None:
        self.app, self._ownership, self._limits, self._folder = app, ownership, limits, folder
        self._hourly = hourly
        self._max_bytes = {
            UPLOAD_PATH: limits.pictures * limits.picture_bytes + FORM_OVERHEAD_BYTES,
            IMPORT_PATH: limits.import_mb * 2**20,
            MCP_PATH: MAX_MCP_BYTES,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/")
        if path.startswith(FILE_PATH):
            known = self._ownership.owns("file", scope["path"].removeprefix(FILE_PATH))
            await (self.app if known else not_found())(scope, receive, send)
        elif path in self._max_bytes and scope["method"] == "POST":
            await self._take(scope, receive, send, path)
        else:
            await self.app(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        max_bytes, address = self._max_bytes[path], CLIENT.get().address
        started = False
        broken: Exception | None = None
        pieces = self._bounded(scope, receive, path, address)

        async def watched_receive() -> Message:
            nonlocal broken
            try:
                return await pieces()
            except BODY_ERRORS as error:
                broken = error
                raise

        async def watched_send(message: Message) -> None:
            nonlocal started
            if broken is not None and not started:
                return  # the app's own error; the reason is sent below
            started = True
            if path == UPLOAD_PATH:
                self._remember(message)
            await send(message)

        async def refuse(answer: ASGIApp) -> None:
            if not started:
                await answer(scope, receive, send)

        try:
            length = max(check_length(scope, max_bytes), 0)
            self._hourly.check(address, length)
            if path == UPLOAD_PATH:
                await asyncio.to_thread(self._sweep)
            if path != MCP_PATH and not self._has_room(length):
                await refuse(error_response(507, "uploads_full"))
            else:
                await self.app(scope, watched_receive, watched_send)
                if broken is not None and not started:  # the app swallowed it
                    raise broken
        except QuotaExceeded as error:
            await refuse(error.refusal)
        except TooManyParts:
            count, limit = self._limits.pictures + 1, self._limits.pictures
            await refuse(error_response(413, "too_many_pictures", count=count, limit=limit))
        except BodyTooLarge:
            await refuse(error_response(413, "upload_too_large", limit=max_bytes // 10**6))
        except BodyTimeout:
            await refuse(error_response(408, "request_slow"))

    def _bounded(self, scope: Scope, receive: Receive, path: str, address: str) -> Receive:
        """`receive` that raises one of BODY_ERRORS for a body that exceeds a limit."""
        pieces = self._hourly.counted(bounded(receive, self._max_bytes[path]), address)
        return bounded_parts(scope, pieces, self._limits.pictures) if path == UPLOAD_PATH else pieces

    def _sweep(self) -> None:
        """Delete what Gradio leaves of aborted uploads."""
        oldest = time.time() - UNFINISHED_SECONDS
        with suppress(OSError):
            for each in os.scandir(self._folder):
                if each.is_file(follow_symlinks=False) and each.stat().st_mtime < oldest:
                    os.unlink(each.path)

    def _has_room(self, length: int) -> bool:
        folder = next((each for each in (self._folder, *self._folder.parents) if each.exists()), Path("/"))
        return shutil.disk_usage(folder).free > length + MIN_FREE_BYTES

    def _remember(self, message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and body.startswith(b"["):
            for path in json.loads(body):
                self._ownership.share("file", str(path))
                self._hourly.owe(CLIENT.get().address, EXTRA_BYTES_PER_FILE)


def bounded_parts(scope: Scope, receive: Receive, max_parts: int) -> Receive:
    """`receive` that raises TooManyParts once there are more than `max_parts` parts; it does not parse them."""
    # Read as the parser reads it, so that no malformed header means two different boundaries.
    _, options = parse_options_header(Headers(scope=scope).get("content-type", ""))
    mark = b"--" + options.get(b"boundary", b"")
    seen, rest = 0, b""

    async def counted() -> Message:
        nonlocal seen, rest
        message = await receive()
        body = rest + message.get("body", b"")
        seen += body.count(mark)
        rest = body[max(0, len(body) - len(mark) + 1) :]
        seen -= rest.count(mark)
        if seen > max_parts + 1:  # the last mark ends the form
            raise TooManyParts
        return message

    return counted
