"""The engine on a server: finds out what it is, keeps an eye on it, and writes replies from its streams.

One event loop in one thread does all network work and carries hundreds of streams; the methods may be called from anywhere.
"""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from magistral_ui.chat.events import Finished
from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Measure, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.remote.completion_body import refuse_what_is_missing, says_length
from magistral_ui.engines.remote.detection import (
    MODEL_LOAD_TIMEOUT,
    ServerOptions,
    StillLoading,
    as_known_before,
    detect,
    make_loaded,
    seen_now,
)
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.image_urls import ImageUrls
from magistral_ui.engines.remote.request_errors import FailedRequest
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.engines.remote.server_profile import ServerProfile
from magistral_ui.engines.remote.streamed_reply import ReplyContext, StreamedReply
from magistral_ui.engines.remote.token_count import TokenCounter, reckoned_measure, surely_fits
from magistral_ui.errors import ImageRefused, MagistralUIError, NotReady, PromptTooLong, ServerUnusable
from magistral_ui.models.cards import MAGISTRAL_1_2, ModelCard, find_card

log = logging.getLogger(__name__)

CHECK_INTERVAL_READY = 5.0
"""Seconds between two looks at a server that serves."""
CHECK_INTERVAL_WAITING = 1.0
"""The same while it loads or is away, so that the page recovers at once."""
MAX_FAILED_CHECKS = 3
"""Looks in a row without an answer after which streams that are silent too are given up."""
SILENT_STREAM_SECONDS = 15.0
"""Seconds without a byte that make a stream silent."""
READ_INTERVAL_PER_STREAM = 0.0002
"""Seconds between two reads of a stream, for each stream that runs: 500 are read ten times a second each."""
MAX_READ_INTERVAL = 0.1
CLOSE_TIMEOUT = 10.0
"""Seconds that `close` waits for the thread, which has nothing to wait for itself."""
CANCEL_RETRY_SECONDS = 0.5
"""Seconds after which a reply that is still being written though it was cancelled is cancelled once more."""
QUESTION_TIMEOUT = 5.0
"""Seconds that `measure` waits for a server's tokenizer before it reckons."""
QUESTION_TIMEOUT_BEFORE_SEND = 2.0
"""The same before a reply: whoever sends waits for it."""
CHECK_VALID_SECONDS = 1.0
"""Seconds for which a look holds: a server may have been swapped before the next one, and a message would go to another model."""
T = TypeVar("T")


class RemoteEngine:
    """Runs a model on an OpenAI-compatible server; `engines/base.py` says what the methods do."""

    def __init__(
        self,
        address: ServerAddress,
        *,
        model: str | None = None,
        dialect: str | None = None,
        context_length: int | None = None,
    ) -> None:
        """Nothing is sent before `start`. `dialect` is a key of DIALECTS; None: found out."""
        self._address, self._wish = address, ServerOptions(model, dialect, context_length)
        guess = (find_card(model) if model else None) or replace(MAGISTRAL_1_2, name=model or MAGISTRAL_1_2.name)
        self._guess: ModelCard = guess
        self._status: EngineStatus = Loading()
        self._profile: ServerProfile | None = None
        self._counter: TokenCounter | None = None
        self._server: ServerClient | None = None
        self._urls = ImageUrls()
        self._unbegun: set[StreamedReply] = set()
        """Replies that the loop has not heard of yet."""
        self._told_model = ""
        self._looked = 0.0
        self._context = ReplyContext(self._pause, self._failed, self._learned)
        self._running: dict[StreamedReply, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def card(self) -> ModelCard:
        """The model that is run; before the server was asked, a first guess."""
        return self._profile.card if self._profile else self._guess

    @property
    def profile(self) -> ServerProfile | None:
        """What was found out about the server, or None."""
        return self._profile

    def start(self) -> None:
        """Begin to look for the server; returns at once."""
        with self._lock:
            if self._thread is None and not self._closed:
                begun = threading.Event()
                self._thread = threading.Thread(target=self._live, args=(begun,), name="remote-engine", daemon=True)
                self._thread.start()
                begun.wait()

    def status(self) -> EngineStatus:
        """Whether the server answers and its model is loaded, as of the last look."""
        return self._status

    def retry(self) -> None:
        """Look again now."""
        if self._loop is not None and self._look is not None and isinstance(self._status, Broken):
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._look.set)

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:  # noqa: ARG002  # servers keep their caches to themselves
        """What `prompt` costs, by the server's tokenizer where it has one."""
        if self._counter is None:
            raise NotReady
        return self._measured(self._counter, prompt, QUESTION_TIMEOUT)

    def _measured(self, counter: TokenCounter, prompt: Prompt, patience: float, limit: int | None = None) -> Measure:
        counting = self._in_loop(counter.measure(prompt, limit))
        try:
            return counting.result(patience)
        except concurrent.futures.CancelledError as error:  # the engine is closing
            raise NotReady from error
        except concurrent.futures.TimeoutError:
            counting.cancel()
            return reckoned_measure(prompt)

    def submit(self, request: GenerationRequest) -> Generation:
        """Begin a reply. A server that is away just now is waited for within the reply."""
        profile, server, loop = self._profile, self._server, self._loop
        if profile is None or server is None or loop is None or self._closed:
            raise NotReady
        refuse_what_is_missing(request.params, profile.dialect, profile.dialect.name)
        if request.prompt.images and not profile.card.vision:
            raise ImageRefused("picture_not_supported", name=request.prompt.images[0].name)
        self._refuse_what_does_not_fit(request.prompt, profile)
        reply: StreamedReply | None = None

        def wake() -> None:
            if reply is not None:
                with suppress(RuntimeError):  # the loop has ended, and the reply with it
                    loop.call_soon_threadsafe(reply.wake)

        generation = Generation(on_control=wake)
        reply = StreamedReply(request, generation, server, profile, self._urls, self._context)
        with self._lock:
            if self._closed:
                raise NotReady
            self._unbegun.add(reply)
        loop.call_soon_threadsafe(self._begin, reply, request)
        return generation

    def _refuse_what_does_not_fit(self, prompt: Prompt, profile: ServerProfile) -> None:
        """PromptTooLong before anything is sent: the server would only refuse it, and a turn that failed would stand there."""
        limit = profile.info.context_length
        if self._counter is None or not profile.loaded or surely_fits(prompt, limit):
            return
        measure = self._measured(self._counter, prompt, QUESTION_TIMEOUT_BEFORE_SEND, limit)
        # What was only reckoned may be wrong, but not by half.
        if measure.total >= limit and (not measure.estimated or (profile.context_known and measure.total >= 2 * limit)):
            raise PromptTooLong(tokens=measure.total, limit=limit)

    def forget(self, visitor: str) -> None:
        """Nothing is kept here; a server's cache is its own."""

    def close(self) -> None:
        """Stop all generations and leave the server."""
        with self._lock:
            self._closed = True
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end)
            self._thread.join(CLOSE_TIMEOUT)
            if self._thread.is_alive():
                log.error("the remote engine's thread did not end")

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        if self._loop is None or self._closed:
            work.close()
            raise NotReady
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _live(self, begun: threading.Event) -> None:
        async def main() -> None:
            self._loop, self._look = asyncio.get_running_loop(), asyncio.Event()
            self._server = ServerClient(self._address)
            self._watch = asyncio.ensure_future(self._keep_watch(self._server))
            begun.set()
            with suppress(asyncio.CancelledError):
                await self._watch
            await self._end_all()
            await self._server.close()

        try:
            asyncio.run(main())
        finally:
            self._status = Broken("engine_closed")
            begun.set()
            self._end_unbegun()

    def _end(self) -> None:
        self._watch.cancel()

    async def _end_all(self) -> None:
        """Cancel every reply until it has ended: what a library swallows once, it does not swallow for ever."""
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

    def _end_unbegun(self) -> None:
        """The last event of replies that came while the loop was ending."""
        with self._lock:
            left, self._unbegun = self._unbegun, set()
        for reply in left:
            reply.generation.put(Finished("cancelled"))

    def _begin(self, reply: StreamedReply, request: GenerationRequest) -> None:
        if self._closed:
            return  # it is ended when the loop is
        self._unbegun.discard(reply)
        task = asyncio.ensure_future(reply.write(lambda: self._room(reply, request)))
        self._running[reply] = task
        task.add_done_callback(lambda _: self._running.pop(reply, None))

    async def _room(self, reply: StreamedReply, request: GenerationRequest) -> int | None:
        """How many tokens a reply may have, where the server refuses to be asked for more; PromptTooLong for none.

        The server is looked at before, so that a message does not go to another model than the one it was written for.
        """
        await self._look_before(reply)
        assert self._profile is not None
        assert self._counter is not None
        reply.know(self._profile)
        profile, limit = self._profile, self._profile.info.context_length
        if not (profile.dialect.must_fit or (profile.context_known and says_length(request.params, profile))):
            return None
        measure = await self._counter.measure(request.prompt, limit)
        if measure.estimated and not profile.dialect.must_fit and measure.total >= limit // 2:
            return None  # it may fit or not; the server knows
        # What was reckoned may be wrong by a tenth; a request that asks for too much is refused as a whole.
        tokens = measure.total if not measure.estimated else measure.total * 11 // 10 + 64
        if tokens >= limit:
            raise PromptTooLong(tokens=measure.total, limit=limit)
        return limit - tokens

    async def _look_before(self, reply: StreamedReply) -> None:
        """Look where the last look is a while ago; a router's model is loaded first, since only then much is known of it."""
        before, server = self._profile, self._server
        assert before is not None
        assert server is not None
        stale = asyncio.get_running_loop().time() - self._looked > CHECK_VALID_SECONDS and isinstance(
            self._status, Ready
        )
        if not before.loaded and not before.shaped:
            await self._until_stopped(reply, make_loaded(server, before.model), MODEL_LOAD_TIMEOUT)
            stale = True
        if stale:
            await self._until_stopped(reply, self._look_at(server, 0), QUESTION_TIMEOUT)
        after = self._profile
        assert after is not None
        if (after.model, after.card.key, after.card.name) != (before.model, before.card.key, before.card.name):
            raise ServerUnusable("remote_other_model", server=server.address.host, model=after.info.name)

    async def _until_stopped(self, reply: StreamedReply, work: Coroutine[Any, Any, object], patience: float) -> None:
        """Wait for `work`, but no longer than somebody wants the reply."""
        task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
        end = loop.time() + patience
        try:
            while not task.done() and not reply.generation.stop_asked and loop.time() < end:
                await asyncio.wait({task}, timeout=0.1)
        finally:
            task.cancel()

    def _learned(self, learn: Callable[[ServerProfile], ServerProfile]) -> None:
        """A reply was taught something about the server: it holds for all that follow, and the page shows it."""
        if self._profile is not None and self._server is not None:
            self._know(learn(self._profile), self._server)
            if isinstance(self._status, Ready):
                self._status = Ready(self._profile.info)

    def _know(self, profile: ServerProfile, server: ServerClient) -> None:
        before, self._profile = self._profile, profile
        if before is None or (before.dialect, before.model) != (profile.dialect, profile.model):
            self._counter = TokenCounter(server, profile)

    def _failed(self, failed: FailedRequest) -> None:
        """A reply failed: where the server is away, the page shows it at once, and the server is looked for."""
        if failed.key in ("remote_unreachable", "remote_key_refused"):
            self._status = Broken(failed.key, failed.values)
        # `transformers serve` tells the name of its model by refusing another.
        if failed.key == "remote_other_model" and failed.refusal is not None:
            self._told_model = str(failed.values["model"])
        if self._look is not None:
            self._look.set()

    def _pause(self) -> float:
        running = len(self._running)
        return min(MAX_READ_INTERVAL, READ_INTERVAL_PER_STREAM * running) if running > 8 else 0.0

    async def _keep_watch(self, server: ServerClient) -> None:
        """Look at the server again and again, for as long as the engine lives."""
        assert self._look is not None
        silence = 0
        while not self._closed:
            silence = await self._look_at(server, silence)
            await self._wait(
                CHECK_INTERVAL_READY if isinstance(self._status, Ready) and not silence else CHECK_INTERVAL_WAITING
            )
            self._look.clear()

    async def _wait(self, seconds: float) -> None:
        """Wait so long, or until somebody wants to look.

        Not by `asyncio.wait_for`: before Python 3.12 it swallows a cancellation that comes together with what it waits for,
        so that a `close` right behind a reply that failed would never end.
        """
        assert self._look is not None
        looking = asyncio.ensure_future(self._look.wait())
        try:
            await asyncio.wait((looking,), timeout=seconds)
        finally:
            looking.cancel()

    async def _look_at(self, server: ServerClient, silence: int) -> int:
        """One look; how many in a row the server has not answered."""
        try:
            before = self._profile
            known = before is not None and self._told_model in ("", before.model) and isinstance(self._status, Ready)
            if before is not None and known:
                if await seen_now(server, before) == before.seen:
                    self._looked = asyncio.get_running_loop().time()
                    return 0
                self._told_model = ""
            wish = replace(self._wish, model=self._told_model) if self._told_model else self._wish
            profile = as_known_before(await detect(server, wish), before)
        except StillLoading:
            self._status = Loading("server")
        except MagistralUIError as error:
            silence = silence + 1 if error.message.key == "remote_unreachable" else 0
            if self._profile is None or silence == 0 or silence >= 2:
                self._status = Broken(error.message.key, error.message.values)
            if silence >= MAX_FAILED_CHECKS:
                self._give_up_the_silent()
            return silence
        except Exception as error:
            log.error("the server could not be looked at", exc_info=error)
            self._status = Broken("remote_failed", {"server": server.address.host})
        else:
            self._know(profile, server)
            self._status = Ready(profile.info)
            self._looked = asyncio.get_running_loop().time()
        return 0

    def _give_up_the_silent(self) -> None:
        now = asyncio.get_running_loop().time()
        for reply in list(self._running):
            if now - reply.heard > SILENT_STREAM_SECONDS:
                reply.lose()
