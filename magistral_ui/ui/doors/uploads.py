"""Takes files in and gives them back to whoever sent them, and to nobody else; it does not look into them."""

import json
import shutil
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.sessions.caller import CALLER
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.rates import Rate
from magistral_ui.ui.doors.bodies import PROGRAM_BYTES, Slow, TooLarge, bounded, check_length
from magistral_ui.ui.doors.claims import Claims
from magistral_ui.ui.doors.refusals import closed, refusal
from magistral_ui.ui.doors.routes import FILE, PROGRAMS

UPLOAD, IMPORT = "/gradio_api/upload", "/magistral/import"
AROUND = 65_536
"""Bytes of a form beside its files."""
ROOM = 512 * 2**20
"""Bytes that stay free on the disk, whatever is sent."""


class Uploads:
    """Bounds the bytes of a form and of an hour, and remembers which browser sent which file."""

    def __init__(self, app: ASGIApp, *, claims: Claims, limits: Limits, folder: Path) -> None:
        self.app, self._claims, self._limits, self._folder = app, claims, limits, folder
        self._most = {
            UPLOAD: limits.pictures * limits.picture_bytes + AROUND,
            IMPORT: limits.import_mb * 2**20,
            PROGRAMS: PROGRAM_BYTES,
        }
        hourly = limits.upload_mb_per_hour_per_address * 10**6
        self._bytes = Rate(hourly / 60, burst=hourly)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        path = scope["path"].rstrip("/") if scope["type"] == "http" else ""
        if path.startswith(FILE):
            known = self._claims.owns("file", scope["path"].removeprefix(FILE))
            await (self.app if known else closed())(scope, receive, send)
        elif path in self._most and scope["method"] == "POST":
            await self._take(scope, receive, send, path)
        else:
            await self.app(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        most, address = self._most[path], CALLER.get().address
        limit = most // 10**6
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            if path == UPLOAD:
                self._remember(message)
            await send(message)

        try:
            length = max(check_length(scope, most), 0)
            wait = self._bytes.take(address, length)
            if wait:
                await refusal(429, "too_many_uploads", wait=int(wait) + 1, minutes=int(wait // 60) + 1)(
                    scope, receive, send
                )
            elif path != PROGRAMS and not self._has_room(length):
                await refusal(507, "uploads_full")(scope, receive, send)
            else:
                await self.app(scope, self._counted(receive, address, length, most), watched)
        except TooLarge:
            if not started:
                await refusal(413, "upload_too_large", limit=limit)(scope, receive, send)
        except Slow:
            if not started:
                await refusal(408, "request_slow")(scope, receive, send)

    def _counted(self, receive: Receive, address: str, announced: int, most: int) -> Receive:
        """What was not announced is paid for as it comes."""
        pieces = bounded(receive, most)

        async def counted() -> Message:
            message = await pieces()
            if not announced and message.get("body"):
                self._bytes.owe(address, len(message["body"]))
            return message

        return counted

    def _has_room(self, length: int) -> bool:
        folder = next((each for each in (self._folder, *self._folder.parents) if each.exists()), Path("/"))
        return shutil.disk_usage(folder).free > length + ROOM

    def _remember(self, message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and body.startswith(b"["):
            for path in json.loads(body):
                self._claims.share("file", str(path))
