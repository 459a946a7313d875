"""Names the sessions of MCP clients and keeps none of them: an id proves whose it is, and only running calls are remembered.

Each request stands alone, so there is nothing to keep but what a client wants to cancel, and no table that could be full.
"""

import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import LRUCache

from magistral_ui.engines.generation import Generation

MAX_ENDED = 10_000
"""Ids that are remembered as ended; without that, they would only be of use to their own client again."""
RequestId = str | int


@dataclass(slots=True)
class RunningCall:
    """A call of a tool, and the reply that it waits for once there is one."""

    cancelled: bool = False
    generation: Generation | None = None

    def cancel(self) -> None:
        """Its client wants no result."""
        self.cancelled = True
        if self.generation is not None:
            self.generation.stop()


class McpSessions:
    """Sessions of one process. An owner is whatever string tells clients apart. Lives in one event loop."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._calls: dict[tuple[str, RequestId], RunningCall] = {}
        self._ended: LRUCache[str, None] = LRUCache(MAX_ENDED)

    def begin(self, owner: str) -> str:
        """The id of a new session, of 128 random bits and a proof that it is the owner's."""
        nonce = secrets.token_hex(16)
        return nonce + self._proof(nonce, owner)

    def belongs(self, session: str, owner: str) -> bool:
        """Whether that is a session of the owner's that has not ended."""
        nonce, proof = session[:32], session[32:]
        right = hmac.compare_digest(proof.encode("utf-8", "replace"), self._proof(nonce, owner).encode())
        return right and session not in self._ended

    def end(self, session: str) -> None:
        """Cancel what runs in it; it belongs to nobody any more."""
        for (of, _), call in list(self._calls.items()):
            if of == session:
                call.cancel()
        self._ended[session] = None

    @contextmanager
    def call(self, session: str | None, request: RequestId | None) -> Iterator[RunningCall]:
        """A call that runs meanwhile, and can be cancelled by its number where it is one of a session."""
        running = RunningCall()
        if session is None or request is None:
            yield running
            return
        key = (session, request)
        self._calls[key] = running
        try:
            yield running
        finally:
            if self._calls.get(key) is running:
                del self._calls[key]

    def cancel(self, session: str, request: object) -> None:
        """Cancel that call of the session, if it runs."""
        if isinstance(request, str | int) and (call := self._calls.get((session, request))):
            call.cancel()

    def __len__(self) -> int:
        return len(self._calls)

    def _proof(self, nonce: str, owner: str) -> str:
        return hmac.new(self._key, f"{nonce} {owner}".encode("utf-8", "replace"), "sha256").hexdigest()
