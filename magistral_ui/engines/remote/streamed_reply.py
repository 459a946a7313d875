"""One reply from a server: its requests in sequence, the controls that act between them, and the resulting events.

Answer now, the reasoning budget and the loop guard close the stream and continue in a new one with the reasoning closed, so
they work alike on every server that can resume a reply.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from magistral_ui.chat.events import (
    Answer,
    Failed,
    Finished,
    FinishReason,
    Notice,
    Prefilling,
    Queued,
    Reasoning,
)
from magistral_ui.chat.prompt import Resume
from magistral_ui.chat.reasoning import ReasoningPiece
from magistral_ui.chat.reasoning_control import LoopGuard, reasoning_limit
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.remote.attempt import Attempt, Phase, Progress, next_phase
from magistral_ui.engines.remote.chunks import Chunk, read_chunk, read_last_chunk
from magistral_ui.engines.remote.completion_body import ImageUrls, body_of, from_tokens
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.reasoning_stream import merge_adjacent
from magistral_ui.engines.remote.request_errors import REQUEST_ERRORS, FailedRequest, failed_request
from magistral_ui.engines.remote.server_profile import (
    ServerProfile,
    chosen_fields,
    early_end_notice,
    learn_early_end,
    learn_refusal,
    reader_for,
    refused_choice,
    updated_profile,
    with_context,
)
from magistral_ui.engines.remote.sse import StreamBroken
from magistral_ui.engines.remote.token_count import estimated_measure
from magistral_ui.errors import MagistralUIError

log = logging.getLogger(__name__)

CHARACTER_LOOPS = ((2_048, 4), (6_144, 3))
"""The loop guard's windows and rounds, in characters: four times those in tokens."""
LOOP_CHECK_CHARACTERS = 1_024
MAX_REPAIRS = 4
"""How often one request is repeated without what the server refused, since it may name only one field at a time."""


@dataclass(frozen=True, slots=True)
class ReplyContext:
    """What a reply needs from its engine."""

    read_interval: Callable[[], float]
    """Returns the seconds between two reads: with many streams, fewer but larger reads are more efficient."""
    failed: Callable[[FailedRequest], None]
    """Called with the reason why a reply failed."""
    learned: Callable[[Callable[[ServerProfile], ServerProfile]], None] = lambda _: None
    """Called with what a reply has learned about the server, for the benefit of later replies."""


class StreamedReply:
    """Writes one generation. All methods must run in the engine's loop."""

    def __init__(
        self,
        request: GenerationRequest,
        generation: Generation,
        server: ServerClient,
        profile: ServerProfile,
        urls: ImageUrls,
        context: ReplyContext,
    ) -> None:
        self.generation = generation
        self.last_received = 0.0
        """When the server last sent anything, in the loop's time."""
        self.profile = profile
        """What is known about the server; updated when it is checked again."""
        self._request, self._server, self._urls, self._context = request, server, urls, context
        self._guard = LoopGuard(CHARACTER_LOOPS, every=LOOP_CHECK_CHARACTERS)
        self._phase, self._attempt = Phase.REASONING, Attempt()
        self._repairs = 0
        self._noticed: set[str] = set()
        self._limit = request.params.max_tokens
        self._reading: asyncio.Task[None] | None = None
        self._lost = self._closing = self._sent = False
        self._jitter = random.Random()

    async def write(self, token_limit: Callable[[], Awaitable[int | None]]) -> None:
        """Write the reply, from the first request to the last event; `token_limit` returns the most tokens it may have."""
        self.last_received = asyncio.get_running_loop().time()
        try:
            self._limit = min(self._limit, await token_limit() or self._limit)
            await self._write()
        except MagistralUIError as error:
            self._fail(FailedRequest(error.message.key, error.message.values))
        except asyncio.CancelledError:
            self._end("cancelled")
        except Exception as error:
            log.error("a reply from a server failed", exc_info=error)
            self._fail(FailedRequest("remote_failed", {"server": self._server.address.host}))

    def wake(self) -> None:
        """Check the controls: the visitor may have asked to stop, or for the answer now."""
        if self._reading is not None and (self.generation.stop_requested or self._answer_is_wanted()):
            self._reading.cancel()

    def connection_lost(self) -> None:
        """Give up this stream: the server is unreachable, although the connection has not noticed."""
        self._lost = True
        if self._reading is not None:
            self._reading.cancel()

    def close(self) -> None:
        """Note that the engine is closing: from now on, a cancellation ends the whole reply and not just one stream."""
        self._closing = True

    async def _write(self) -> None:
        resume, tries = self._request.prompt.resume, 0
        while not self.generation.stop_requested:
            failed = await self._stream(resume, tries)
            attempt = self._attempt
            if self.generation.stop_requested:
                break
            if failed is not None:
                if self._repair(failed):
                    continue
                if failed.wait is None or attempt.wrote:
                    cut = attempt.wrote and failed.key == "remote_unreachable"
                    return self._fail(replace(failed, key="remote_cut") if cut else failed)
                tries += 1
                await self._wait(failed)
            elif self._phase is Phase.CLOSING and attempt.finish is None:
                self._phase, resume, tries = Phase.ANSWERING, Resume(self._reasoning(), True), 0
            else:
                return self._end("length" if attempt.finish == "length" else "stop")
        return self._end("cancelled")

    def _repair(self, failed: FailedRequest) -> bool:
        """Leave what the server refused out of the next request; False if that is impossible or the visitor chose it."""
        if failed.refusal is None or self._attempt.wrote or self._repairs >= MAX_REPAIRS:
            return False
        refusal, sent = failed.refusal, self._attempt.body
        chosen = chosen_fields(self._request.params, self.profile)
        update = updated_profile(self.profile, refusal, sent, chosen)
        if update is None:
            return False
        self._repairs += 1
        self.profile = update.profile
        self._limit = min(self._limit, update.max_tokens or self._limit)
        self._context.learned(lambda known: learn_refusal(known, refusal, sent, chosen))
        for notice in update.notices:
            self._noticed.add(notice.key)
            self.generation.put(notice)
        return True

    async def _stream(self, resume: Resume | None, tries: int) -> FailedRequest | None:
        """Make one request and read it until it ends or its reasoning has to end; returns the failure, if any."""
        attempt = self._attempt = Attempt()
        self._reading = asyncio.ensure_future(self._read(attempt, resume))
        try:
            await self._reading
        except asyncio.CancelledError:
            # Four things cancel a read: closing the engine, losing the server, Stop and Answer now.
            if self._closing:
                raise
            if self._lost:
                self._lost = False
                return failed_request(ConnectionError(), self._server.address.host, tries, self._jitter)
            if not (self.generation.stop_requested or self._answer_is_wanted()):
                raise
            if not self.generation.stop_requested:
                self._advance()
        except REQUEST_ERRORS as error:
            return failed_request(error, self._server.address.host, tries, self._jitter, attempt.body)
        finally:
            self._reading = None
        return None

    async def _read(self, attempt: Attempt, resume: Resume | None) -> None:
        """Send one request and emit what its stream brings."""
        profile, max_tokens = self.profile, self._limit - self.generation.usage.completion_tokens
        # In a thread, because encoding images takes long enough to delay other streams.
        body = await asyncio.to_thread(body_of, self._request, profile, self._urls, resume, max_tokens)
        by_tokens = resume is not None and not resume.closed and resume.reasoning and profile.dialect.open_by_tokens
        attempt.body = from_tokens(body, await self._tokens_of(body)) if by_tokens else body
        attempt.reader = reader_for(profile, resume, by_tokens=bool(by_tokens))
        async with self._server.stream(attempt.body) as data:
            self._sent = True
            async for received in data:
                self.last_received = asyncio.get_running_loop().time()
                self._take(attempt, attempt.payloads(received), read_chunk)
                if self._advance() is Phase.CLOSING:
                    return  # which closes the connection, so that the server stops; what it may have sent is not shown
                if attempt.done:
                    break  # some servers keep the connection open after the end mark
                if interval := self._context.read_interval():
                    await asyncio.sleep(interval)
        # Some servers end with a complete payload that no line break follows.
        self._take(attempt, attempt.last_payloads(), read_last_chunk)
        self._emit(attempt.rest())
        attempt.end(self.generation.answer)
        if resume is None:
            self._show_lone_reasoning(attempt)

    def _take(self, attempt: Attempt, payloads: list[bytes], read: Callable[[bytes], Chunk]) -> None:
        pieces: list[ReasoningPiece] = []
        try:
            for payload in payloads:
                if self._budget_is_spent():
                    break  # text beyond the budget in the same read is not shown
                chunk = read(payload)
                self._count_prompt(chunk)
                if chunk.parts:
                    self.generation.count_first_token()
                attempt.take(chunk, pieces)
        finally:
            self._emit(pieces)  # text before an unreadable payload is kept

    async def _tokens_of(self, body: dict[str, Any]) -> list[int]:
        asked = {name: body[name] for name in ("model", "messages", "continue_final_message", "add_generation_prompt")}
        response = await self._server.ask("/tokenize", asked)
        tokens = response.fields.get("tokens")
        if not tokens:
            raise StreamBroken("remote_refused", status=response.status, detail="/tokenize")
        return [int(token) for token in tokens]

    def _count_prompt(self, chunk: Chunk) -> None:
        """Record what a chunk says about the prompt. Only the first request counts: later ones include the reply so far."""
        if chunk.progress is not None and not self.generation.usage.completion_tokens:
            done, total, reused = chunk.progress
            self.generation.put(Prefilling(done, total, reused))
            if total and not self.generation.usage.prompt_tokens:
                self.generation.count_prompt(total, reused)
        if chunk.prompt_tokens:
            known = self.generation.usage
            cached = known.reused_tokens if chunk.cached_tokens is None else chunk.cached_tokens
            if known.prompt_tokens in (0, chunk.prompt_tokens):
                self.generation.count_prompt(chunk.prompt_tokens, cached)

    def _advance(self) -> Phase:
        """Enter the next phase; if the reasoning has to end, emit a notice that says why."""
        self._phase, notice = next_phase(self._phase, self._progress())
        if notice is not None:
            self.generation.put(Notice(notice))
        return self._phase

    def _progress(self) -> Progress:
        reader = self._attempt.reader
        return Progress(
            closable=self.profile.dialect.closes_reasoning and reader is not None,
            answering=reader is not None and reader.answer,
            answer_wanted=self.generation.answer_now_requested and bool(self._reasoning()),
            budget_spent=self._budget_is_spent(),
            looping=self._guard.looping,
        )

    def _answer_is_wanted(self) -> bool:
        """Whether the reasoning has to end because the visitor asked for the answer."""
        return next_phase(self._phase, self._progress()) == (Phase.CLOSING, "answered_now")

    def _budget_is_spent(self) -> bool:
        """Whether the reasoning has used up its budget; it may exceed it by up to one chunk."""
        params, reader = self._request.params, self._attempt.reader
        limit = reasoning_limit(params.max_tokens, params.reasoning_budget)
        if limit is None or reader is None or self._phase is not Phase.REASONING or reader.answer:
            return False
        return reader.reasoning_tokens >= max(1, limit)

    async def _wait(self, failed: FailedRequest) -> None:
        """Show the time until the next attempt and wait for it; Stop ends the wait."""
        assert failed.wait is not None
        self.generation.put(Queued(0, failed.wait))
        self._reading = asyncio.ensure_future(asyncio.sleep(failed.wait))
        try:
            await self._reading
        except asyncio.CancelledError:
            # If the answer is wanted now, the next attempt starts at once.
            if self._closing or not (self.generation.stop_requested or self._lost or self._answer_is_wanted()):
                raise
            self._lost = False
        finally:
            self._reading = None

    def _reasoning(self) -> str:
        """All reasoning so far, including that of a resumed reply."""
        resume = self._request.prompt.resume
        return ((resume.reasoning or "") if resume else "") + self.generation.reasoning

    def _show_lone_reasoning(self, attempt: Attempt) -> None:
        """Show the reasoning as the answer if there is nothing else: some servers label every reply as reasoning."""
        reader = attempt.reader
        if reader and attempt.finish == "stop" and reader.reasoning and not reader.answer and not reader.marked:
            self.generation.put(Notice("remote_only_reasoning"))
            self._emit([Answer(self._reasoning(), 0)])

    def _emit(self, pieces: list[ReasoningPiece]) -> None:
        for piece in merge_adjacent(pieces):
            if isinstance(piece, Reasoning):
                for letter in piece.text:
                    self._guard.feed(ord(letter))
            self._attempt.wrote = True
            self.generation.put(piece)

    def _end(self, why: FinishReason) -> None:
        attempt = self._attempt
        if why == "cancelled" and attempt.reader is not None:
            self._emit(attempt.reader.leave(cut=True))
        usage = self.generation.usage
        if why == "length" and usage.completion_tokens < self._request.params.max_tokens:
            self._context.learned(lambda known: learn_early_end(known, attempt.body, usage))
            lowered = Notice(early_end_notice(self.profile, attempt.body, usage), {"limit": usage.completion_tokens})
            if lowered.key not in self._noticed:
                self.generation.put(lowered)
        # Where the dialect closes reasoning, the notice about the budget has already said so.
        unwanted = self._request.prompt.effort == "none" and self.generation.reasoning
        if unwanted and not self.profile.dialect.closes_reasoning:
            self.generation.put(Notice("remote_reasoned_anyway"))
        self._estimate_prompt()
        self.generation.put(Finished(why))

    def _fail(self, failed: FailedRequest) -> None:
        if refusal := failed.refusal:
            self._context.learned(lambda known: with_context(known, refusal.limit))
            chosen = chosen_fields(self._request.params, self.profile)
            if name := refused_choice(self.profile, refusal, chosen):
                failed = FailedRequest("parameter_not_supported", {"name": name, "server": self._server.address.host})
        if self._attempt.reader is not None and self._attempt.wrote:
            self._emit(self._attempt.reader.leave())
        self._context.failed(failed)
        self._estimate_prompt()
        self.generation.put(Failed(failed.key, failed.values))

    def _estimate_prompt(self) -> None:
        """Estimate the prompt's tokens if the reply was cut before the server reported them."""
        if self._sent and not self.generation.usage.prompt_tokens:
            self.generation.count_prompt(estimated_measure(self._request.prompt).total, estimated=True)
