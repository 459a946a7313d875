"""Monitors one server: what it is, whether it can serve, and what replies learn about it; it writes no replies."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from magistral_ui.engines.base import Broken, EngineStatus, Loading, Ready
from magistral_ui.engines.remote.detection import (
    MODEL_LOAD_TIMEOUT,
    ServerOptions,
    StillLoading,
    current_fingerprint,
    detect,
    keep_known_template,
    load_model,
)
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.request_errors import FailedRequest
from magistral_ui.engines.remote.server_profile import ServerProfile
from magistral_ui.engines.remote.token_count import TokenCounter
from magistral_ui.errors import MagistralUIError, ServerUnusable

log = logging.getLogger(__name__)

CHECK_INTERVAL_READY = 5.0
"""Seconds between two health checks of a server that is ready."""
CHECK_INTERVAL_WAITING = 1.0
"""The same while it is loading or unreachable, so that the page recovers at once."""
MAX_FAILED_CHECKS = 3
"""Consecutive checks without an answer after which silent streams are dropped too."""
CHECK_TIMEOUT = 5.0
"""Seconds that a reply waits for a check before it starts."""
CHECK_VALID_SECONDS = 1.0
"""Seconds for which a check is valid: later, the server may run another model, which must not get the message."""


class ServerMonitor:
    """One server's status and profile, checked repeatedly. All methods must run in the engine's loop."""

    def __init__(self, server: ServerClient, options: ServerOptions, drop_silent_streams: Callable[[], None]) -> None:
        """`drop_silent_streams` ends the streams that are silent while the server does not answer."""
        self.status: EngineStatus = Loading()
        self.profile: ServerProfile | None = None
        self.counter: TokenCounter | None = None
        self._server, self._options, self._drop_silent_streams = server, options, drop_silent_streams
        self._reported_model = ""
        """The model that the server named when it refused another one."""
        self._checked = 0.0
        self._check_now = asyncio.Event()

    def check_soon(self) -> None:
        self._check_now.set()

    async def run(self) -> None:
        """Check the server repeatedly, until cancelled."""
        failed = 0
        while True:
            failed = await self._check(failed)
            is_ready = isinstance(self.status, Ready) and not failed
            await self._wait(CHECK_INTERVAL_READY if is_ready else CHECK_INTERVAL_WAITING)
            self._check_now.clear()

    async def _wait(self, seconds: float) -> None:
        """Wait for `seconds`, or until a check is wanted.

        Not with `asyncio.wait_for`: before Python 3.12, it swallows a cancellation that arrives together with the event, so that
        a `close` right after a failed reply would never end.
        """
        wanted = asyncio.ensure_future(self._check_now.wait())
        try:
            await asyncio.wait((wanted,), timeout=seconds)
        finally:
            wanted.cancel()

    async def _check(self, failed: int = 0) -> int:
        """Check once, after `failed` consecutive checks without an answer; returns their new number."""
        try:
            before = self.profile
            known = before is not None and self._reported_model in ("", before.model) and isinstance(self.status, Ready)
            if before is not None and known:
                if await current_fingerprint(self._server, before) == before.fingerprint:
                    self._checked = asyncio.get_running_loop().time()
                    return 0
                self._reported_model = ""
            options = replace(self._options, model=self._reported_model) if self._reported_model else self._options
            profile = keep_known_template(await detect(self._server, options), before)
        except StillLoading:
            self.status = Loading("server")
        except MagistralUIError as error:
            failed = failed + 1 if error.message.key == "remote_unreachable" else 0
            if self.profile is None or failed == 0 or failed >= 2:
                self.status = Broken(error.message.key, error.message.values)
            if failed >= MAX_FAILED_CHECKS:
                self._drop_silent_streams()
            return failed
        except Exception as error:
            log.error("the server could not be checked", exc_info=error)
            self.status = Broken("remote_failed", {"server": self._server.address.host})
        else:
            self._set_profile(profile)
            self.status = Ready(profile.info)
            self._checked = asyncio.get_running_loop().time()
        return 0

    def _set_profile(self, profile: ServerProfile) -> None:
        before, self.profile = self.profile, profile
        if before is None or (before.dialect, before.model) != (profile.dialect, profile.model):
            self.counter = TokenCounter(self._server, profile)

    def learn(self, update: Callable[[ServerProfile], ServerProfile]) -> None:
        """Apply what a reply has learned about the server, for later replies and the page."""
        if self.profile is not None:
            self._set_profile(update(self.profile))
            if isinstance(self.status, Ready):
                self.status = Ready(self.profile.info)

    def reply_failed(self, failed: FailedRequest) -> None:
        """Check the server; if the failure means that it is unreachable, show that at once."""
        if failed.key in ("remote_unreachable", "remote_key_refused"):
            self.status = Broken(failed.key, failed.values)
        # `transformers serve` reveals the name of its model by refusing another.
        if failed.key == "remote_other_model" and failed.refusal is not None:
            self._reported_model = str(failed.values["model"])
        self.check_soon()

    async def refresh(self, is_stopped: Callable[[], bool]) -> ServerProfile:
        """The current profile, checked again if the last check is too old; a router's model is loaded first.

        Raises ServerUnusable if another model runs now: the message was written for the previous one.
        """
        before = self.profile
        assert before is not None
        is_old = asyncio.get_running_loop().time() - self._checked > CHECK_VALID_SECONDS
        is_stale = is_old and isinstance(self.status, Ready)
        if not before.loaded and not before.template_known:  # little is known about a model until it is loaded
            await _until_stopped(load_model(self._server, before.model), MODEL_LOAD_TIMEOUT, is_stopped)
            is_stale = True
        if is_stale:
            await _until_stopped(self._check(), CHECK_TIMEOUT, is_stopped)
        after = self.profile or before
        if (after.model, after.card.key, after.card.name) != (before.model, before.card.key, before.card.name):
            raise ServerUnusable("remote_other_model", server=self._server.address.host, model=after.info.name)
        return after


async def _until_stopped(work: Coroutine[Any, Any, object], timeout: float, is_stopped: Callable[[], bool]) -> None:
    """Wait for `work`, until `timeout` or until the reply is stopped."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    end = loop.time() + timeout
    try:
        while not task.done() and not is_stopped() and loop.time() < end:
            await asyncio.wait({task}, timeout=0.1)
    finally:
        task.cancel()
