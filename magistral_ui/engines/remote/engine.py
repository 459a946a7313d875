"""The remote engine: tracks the state of a model server and turns its streams into replies.

One event loop in one thread does all the network work, for hundreds of streams; the methods may be called from any thread.
"""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from magistral_ui.chat.events import Finished
from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Measure
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.remote.completion_body import ImageUrls, refuse_unsupported, sends_max_tokens
from magistral_ui.engines.remote.detection import ServerOptions
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.engines.remote.server_monitor import ServerMonitor
from magistral_ui.engines.remote.server_profile import ServerProfile
from magistral_ui.engines.remote.streamed_reply import ReplyContext, StreamedReply
from magistral_ui.engines.remote.token_count import TokenCounter, certainly_fits, estimated_measure
from magistral_ui.errors import ImageRefused, NotReady, PromptTooLong
from magistral_ui.models.cards import MAGISTRAL_1_2, ModelCard, find_card

log = logging.getLogger(__name__)

SILENT_STREAM_SECONDS = 15.0
"""Seconds without a byte after which a stream counts as silent."""
READ_INTERVAL_PER_STREAM = 0.0002
"""Seconds between two reads of a stream, for each running stream: 500 streams are read ten times a second each."""
MAX_READ_INTERVAL = 0.1
CLOSE_TIMEOUT = 10.0
CANCEL_RETRY_SECONDS = 0.5
"""Seconds after which a reply that is still running although it was cancelled is cancelled again."""
MEASURE_TIMEOUT = 5.0
"""Seconds that `measure` waits for the server's tokenizer before it estimates."""
MEASURE_TIMEOUT_BEFORE_SEND = 2.0
"""The same before a reply, while its sender waits."""
T = TypeVar("T")


class RemoteEngine:
    """Runs a model on an OpenAI-compatible server; `engines/base.py` describes the methods."""

    def __init__(
        self,
        address: ServerAddress,
        *,
        model: str | None = None,
        dialect: str | None = None,
        context_length: int | None = None,
    ) -> None:
        """Nothing is sent before `start`. `dialect` is a key of DIALECTS; None: detect it. Raises environment.ProxyUnusable."""
        guess = (find_card(model) if model else None) or replace(MAGISTRAL_1_2, name=model or MAGISTRAL_1_2.name)
        self._assumed_card: ModelCard = guess
        self._server = ServerClient(address)
        self._monitor = ServerMonitor(
            self._server, ServerOptions(model, dialect, context_length), self._drop_silent_streams
        )
        self._context = ReplyContext(self._read_interval, self._monitor.reply_failed, self._monitor.learn)
        self._urls = ImageUrls()
        self._submitted: set[StreamedReply] = set()
        """Replies that the loop has not started yet."""
        self._running: dict[StreamedReply, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def card(self) -> ModelCard:
        return self._monitor.profile.card if self._monitor.profile else self._assumed_card

    @property
    def profile(self) -> ServerProfile | None:
        return self._monitor.profile

    def start(self) -> None:
        """Start looking for the server; returns at once."""
        with self._lock:
            if self._thread is None and not self._closed:
                started = threading.Event()
                self._thread = threading.Thread(
                    target=self._run_loop, args=(started,), name="remote-engine", daemon=True
                )
                self._thread.start()
                started.wait()

    def status(self) -> EngineStatus:
        return self._monitor.status

    def retry(self) -> None:
        if self._loop is not None and isinstance(self._monitor.status, Broken):
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._monitor.check_soon)

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:  # noqa: ARG002  # a server's cache is not visible
        if self._monitor.counter is None:
            raise NotReady
        return self._measure(self._monitor.counter, prompt, MEASURE_TIMEOUT)

    def _measure(self, counter: TokenCounter, prompt: Prompt, timeout: float, limit: int | None = None) -> Measure:
        counting = self._in_loop(counter.measure(prompt, limit))
        try:
            return counting.result(timeout)
        except concurrent.futures.CancelledError as error:  # the engine is closing
            raise NotReady from error
        except concurrent.futures.TimeoutError:
            counting.cancel()
            return estimated_measure(prompt)

    def submit(self, request: GenerationRequest) -> Generation:
        """Start a reply. If the server is unreachable, the reply waits for it."""
        profile, loop = self._monitor.profile, self._loop
        if profile is None or loop is None or self._closed:
            raise NotReady
        refuse_unsupported(request.params, profile.dialect, profile.dialect.name)
        if request.prompt.images and not profile.card.vision:
            raise ImageRefused("picture_not_supported", name=request.prompt.images[0].name)
        self._refuse_too_long(request.prompt, profile)
        reply: StreamedReply | None = None

        def wake() -> None:
            if reply is not None:
                with suppress(RuntimeError):  # the loop has ended, and the reply with it
                    loop.call_soon_threadsafe(reply.wake)

        generation = Generation(on_control=wake)
        reply = StreamedReply(request, generation, self._server, profile, self._urls, self._context)
        with self._lock:
            if self._closed:
                raise NotReady
            self._submitted.add(reply)
        loop.call_soon_threadsafe(self._begin, reply, request)
        return generation

    def _refuse_too_long(self, prompt: Prompt, profile: ServerProfile) -> None:
        """Raise PromptTooLong before anything is sent: the server would refuse it too, but leave a failed turn behind."""
        limit, counter = profile.info.context_length, self._monitor.counter
        if counter is None or not profile.loaded or certainly_fits(prompt, limit, profile.image_grid):
            return
        measure = self._measure(counter, prompt, MEASURE_TIMEOUT_BEFORE_SEND, limit)
        # An estimate may be wrong, but not by a factor of two.
        if measure.total >= limit and (not measure.estimated or (profile.context_known and measure.total >= 2 * limit)):
            raise PromptTooLong(tokens=measure.total, limit=limit)

    def forget(self, visitor: str) -> None:
        """Does nothing: only the server has a cache."""

    def close(self) -> None:
        with self._lock:
            self._closed = True
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._watch.cancel)
            self._thread.join(CLOSE_TIMEOUT)
            if self._thread.is_alive():
                log.error("the remote engine's thread did not end")

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        if self._loop is None or self._closed:
            work.close()
            raise NotReady
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run_loop(self, started: threading.Event) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._watch = asyncio.ensure_future(self._monitor.run())
            started.set()
            with suppress(asyncio.CancelledError):
                await self._watch
            await self._end_all()
            await self._server.close()

        try:
            asyncio.run(main())
        finally:
            self._monitor.status = Broken("engine_closed")
            started.set()
            self._end_submitted()

    async def _end_all(self) -> None:
        """Cancel the replies until all have ended: a library may swallow one cancellation, but not every one."""
        running = dict(self._running)
        left = set(running.values())
        for reply in running:
            reply.close()
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=CANCEL_RETRY_SECONDS)
        for reply in running:
            if not reply.generation.ended:  # it was cancelled before its first step
                reply.generation.put(Finished("cancelled"))

    def _end_submitted(self) -> None:
        """End replies that were submitted while the loop was ending."""
        with self._lock:
            left, self._submitted = self._submitted, set()
        for reply in left:
            reply.generation.put(Finished("cancelled"))

    def _begin(self, reply: StreamedReply, request: GenerationRequest) -> None:
        if self._closed:
            return  # `_end_submitted` ends it
        self._submitted.discard(reply)
        task = asyncio.ensure_future(reply.write(lambda: self._token_limit(reply, request)))
        self._running[reply] = task
        task.add_done_callback(lambda _: self._running.pop(reply, None))

    async def _token_limit(self, reply: StreamedReply, request: GenerationRequest) -> int | None:
        """The most tokens that can be requested without a refusal, or None for no limit. Raises PromptTooLong if there are none.

        The server is checked first, so that no message goes to a model other than the one it was written for.
        """
        profile = await self._monitor.refresh(lambda: reply.generation.stop_requested)
        assert self._monitor.counter is not None
        reply.profile = profile
        limit = profile.info.context_length
        if not (profile.dialect.must_fit or (profile.context_known and sends_max_tokens(request.params, profile))):
            return None
        measure = await self._monitor.counter.measure(request.prompt, limit)
        if measure.estimated and not profile.dialect.must_fit and measure.total >= limit // 2:
            return None  # only the server knows whether it fits
        # An estimate may be off by a tenth, and the server refuses the whole request if it asks for too much.
        tokens = measure.total if not measure.estimated else measure.total * 11 // 10 + 64
        if tokens >= limit:
            raise PromptTooLong(tokens=measure.total, limit=limit)
        return limit - tokens

    def _read_interval(self) -> float:
        running = len(self._running)
        return min(MAX_READ_INTERVAL, READ_INTERVAL_PER_STREAM * running) if running > 8 else 0.0

    def _drop_silent_streams(self) -> None:
        now = asyncio.get_running_loop().time()
        for reply in list(self._running):
            if now - reply.last_received > SILENT_STREAM_SECONDS:
                reply.connection_lost()
