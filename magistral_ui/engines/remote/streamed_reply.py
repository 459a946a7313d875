"""One reply from a server: streams that follow each other, the controls in between, and the events that come of it.

Answer-now, the reasoning budget and the loop guard close the stream and go on in another one with the reasoning closed, so that
they are the same on every server that can go on with a reply.
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
from magistral_ui.engines.remote.chunks import Chunk, read_chunk, read_last_chunk
from magistral_ui.engines.remote.completion_body import body_of, from_tokens
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.image_urls import ImageUrls
from magistral_ui.engines.remote.profile_updates import (
    chosen_fields,
    lengthened,
    refused_choice,
    relearned,
    updated_profile,
    why_lowered,
    with_context,
)
from magistral_ui.engines.remote.reasoning_stream import ReplyReader, finish_of, gathered
from magistral_ui.engines.remote.request_errors import REQUEST_ERRORS, FailedRequest, failed_request
from magistral_ui.engines.remote.server_profile import ServerProfile, reader_for
from magistral_ui.engines.remote.sse import DONE, PayloadReader, StreamBroken
from magistral_ui.engines.remote.token_count import reckoned_measure
from magistral_ui.errors import MagistralUIError

log = logging.getLogger(__name__)

CHARACTER_LOOPS = ((2_048, 4), (6_144, 3))
"""The loop guard's windows and rounds, in characters: four times those in tokens."""
LOOP_CHECK_CHARACTERS = 1_024
TOOL_CALLS = frozenset({"tool_calls", "tool_call", "function_call", "tool_use"})
"""Reasons to stop that mean that the model waits for a tool."""
MAX_REPAIRS = 4
"""Times that one request goes out again without something that the server refused: it may name one field after the other."""


@dataclass(frozen=True, slots=True)
class ReplyContext:
    """What a reply needs of the engine that it is written for."""

    pause: Callable[[], float]
    """Gives the seconds between two reads: with many streams, fewer and larger reads carry more."""
    noticed: Callable[[FailedRequest], None]
    """Is told of what a reply failed with."""
    learned: Callable[[Callable[[ServerProfile], ServerProfile]], None] = lambda _: None
    """Takes what a reply has learned of the server, for all that follow."""


class StreamedReply:
    """Writes one generation. `write` runs in the engine's loop, and so must all its other methods."""

    def __init__(
        self,
        request: GenerationRequest,
        generation: Generation,
        server: ServerClient,
        profile: ServerProfile,
        urls: ImageUrls,
        around: "ReplyContext",
    ) -> None:
        self.generation = generation
        self.heard = 0.0
        """When the server last said anything, in the loop's time."""
        self._request, self._server, self._profile, self._urls, self._around = request, server, profile, urls, around
        self._guard = LoopGuard(CHARACTER_LOOPS, every=LOOP_CHECK_CHARACTERS)
        self._closed_by: str | None = None
        self._finish: str | None = None
        self._asked: dict[str, Any] = {}
        self._mended = 0
        self._told: set[str] = set()
        self._limit = request.params.max_tokens
        self._reading: asyncio.Task[None] | None = None
        self._reader: ReplyReader | None = None
        self._lost = self._closing = self._written_in_stream = self._sent = False
        self._heard_chunk = self._heard_foreign = self._called_tool = self._asks_for_tool = False
        self._foreign_words = ""
        self._jitter = random.Random()

    async def write(self, room: Callable[[], Awaitable[int | None]]) -> None:
        """Everything from the first request to the last event; `room` gives the tokens that the reply may have at most."""
        self.heard = asyncio.get_running_loop().time()
        try:
            self._limit = min(self._limit, await room() or self._limit)
            await self._write()
        except MagistralUIError as error:
            self._fail(FailedRequest(error.message.key, error.message.values))
        except asyncio.CancelledError:
            self._end("cancelled")
        except Exception as error:
            log.error("a reply from a server failed", exc_info=error)
            self._fail(FailedRequest("remote_failed", {"server": self._server.address.host}))

    def know(self, profile: ServerProfile) -> None:
        """The server has been looked at since this reply was asked for."""
        self._profile = profile

    def wake(self) -> None:
        """Look at the controls: a person wants to stop, or to have the answer now."""
        if self._reading is not None and (self.generation.stop_asked or self._wants_answer()):
            self._reading.cancel()

    def lose(self) -> None:
        """The server is gone, though this stream's line has not noticed."""
        self._lost = True
        if self._reading is not None:
            self._reading.cancel()

    def close(self) -> None:
        """The engine is closing: what cancels this reply from now on is meant for all of it, not for one stream."""
        self._closing = True

    async def _write(self) -> None:
        resume, tries = self._request.prompt.resume, 0
        while not self.generation.stop_asked:
            trouble, before = await self._stream(resume, tries), self._closed_by
            if self.generation.stop_asked:
                break
            if trouble is not None:
                if self._mends(trouble):
                    continue
                if trouble.wait is None or self._written_in_stream:
                    cut = self._written_in_stream and trouble.key == "remote_unreachable"
                    return self._fail(replace(trouble, key="remote_cut") if cut else trouble)
                tries += 1
                await self._wait(trouble)
            elif before is not None and self._finish is None:
                resume, tries = Resume(self._reasoning(), True), 0
            else:
                return self._end("length" if self._finish == "length" else "stop")
        return self._end("cancelled")

    def _mends(self, trouble: FailedRequest) -> bool:
        """Whether the request may go out again without what the server refused, which nobody had asked for."""
        if trouble.refusal is None or self._written_in_stream or self._mended >= MAX_REPAIRS:
            return False
        refusal, sent = trouble.refusal, self._asked
        chosen = chosen_fields(self._request.params, self._profile)
        lesson = updated_profile(self._profile, refusal, sent, chosen)
        if lesson is None:
            return False
        self._mended += 1
        self._profile = lesson.profile
        self._limit = min(self._limit, lesson.most or self._limit)
        self._around.learned(lambda known: relearned(known, refusal, sent, chosen))
        for notice in lesson.notices:
            self._told.add(notice.key)
            self.generation.put(notice)
        return True

    async def _stream(self, resume: Resume | None, tries: int) -> FailedRequest | None:
        """One request to its end, or until a control closes it; what went wrong, or None."""
        self._written_in_stream, self._finish = False, None
        self._reading = asyncio.ensure_future(self._read(resume))
        try:
            await self._reading
        except asyncio.CancelledError:
            if self._closing:
                raise
            if self._lost:
                self._lost = False
                return failed_request(ConnectionError(), self._server.address.host, tries, self._jitter)
            if not (self.generation.stop_asked or self._wants_answer()):
                raise  # the engine is closing
            if not self.generation.stop_asked:
                self._close("answered_now")
        except REQUEST_ERRORS as error:
            return failed_request(error, self._server.address.host, tries, self._jitter, self._asked)
        finally:
            self._reading = None
        return None

    async def _read(self, resume: Resume | None) -> None:
        profile = self._profile
        body = await asyncio.to_thread(
            body_of, self._request, profile, self._urls, resume, self._limit - self.generation.usage.completion_tokens
        )
        by_tokens = resume is not None and not resume.closed and resume.reasoning and profile.dialect.open_by_tokens
        if by_tokens:
            body = from_tokens(body, await self._tokens_of(body))
        self._asked = body
        self._reader = reader = reader_for(profile, resume, by_tokens=bool(by_tokens))
        self._heard_chunk = self._heard_foreign = self._called_tool = self._asks_for_tool = False
        self._foreign_words = ""
        payloads, last, done = PayloadReader(), Chunk(), False
        async with self._server.stream(body) as data:
            self._sent = True
            async for received in data:
                self.heard = asyncio.get_running_loop().time()
                pieces: list[ReasoningPiece] = []
                try:
                    for payload in payloads.feed(received):
                        done = done or payload == DONE
                        if not done and not self._spent(reader):  # what came behind the budget is not shown
                            last = self._took(read_chunk(payload), reader, pieces, last)
                finally:
                    self._tell(pieces)  # what stands before something that cannot be read is kept
                if done:
                    break
                if self._must_close():
                    return
                if pause := self._around.pause():
                    await asyncio.sleep(pause)
        pieces = []
        for payload in payloads.finish() if not done else ():
            if payload == DONE:
                done = True
            else:
                last = self._took(read_last_chunk(payload), reader, pieces, last)
        self._tell(pieces)
        if self._finish is None and self._foreign_words and not self._heard_chunk:
            raise StreamBroken("remote_error", detail=self._foreign_words)
        strange = not self._heard_chunk and (payloads.strange > 0 or self._heard_foreign)
        if self._finish is None and (strange or not done):
            raise StreamBroken("remote_malformed" if strange else "remote_cut")
        self._tell([*reader.finish(cut=self._finish == "length"), *reader.settle(last)])
        # Not where an answer follows a call: some servers tell of tools that they have called themselves.
        calls, answered = self._called_tool + self._asks_for_tool, self.generation.answer.strip()
        if calls == 2 or (calls and not answered):
            raise StreamBroken("remote_called_tool")
        self._finish = self._finish or "stop"
        self._show_lone_reasoning(reader, resume)

    async def _tokens_of(self, body: dict[str, Any]) -> list[int]:
        asked = {name: body[name] for name in ("model", "messages", "continue_final_message", "add_generation_prompt")}
        told = await self._server.ask("/tokenize", asked)
        tokens = told.value.get("tokens") if told.fine and isinstance(told.value, dict) else None
        if not tokens:
            raise StreamBroken("remote_refused", status=told.status, detail="/tokenize")
        return [int(token) for token in tokens]

    def _took(self, chunk: Chunk, reader: ReplyReader, pieces: list[ReasoningPiece], last: Chunk) -> Chunk:
        """One more chunk; gives the last one that had a usage."""
        self._heard_chunk = self._heard_chunk or not chunk.silent
        self._heard_foreign = self._heard_foreign or chunk.foreign
        self._foreign_words = self._foreign_words or (chunk.words if chunk.foreign else "")
        self._called_tool = self._called_tool or chunk.calls_tool
        self._count_prompt(chunk)
        if chunk.parts:
            self.generation.count_first_token()
        pieces += reader.feed(chunk)
        if chunk.finish_reason is not None:
            self._finish = finish_of(chunk.finish_reason)
            self._asks_for_tool = chunk.finish_reason in TOOL_CALLS
        return chunk if chunk.completion_tokens is not None else last

    def _count_prompt(self, chunk: Chunk) -> None:
        """What a chunk tells of the prompt. Of several requests the first one's counts: the others repeat the reply so far."""
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

    def _must_close(self) -> bool:
        """Whether the reasoning has to end here; then `_closed_by` says why."""
        if not self._profile.dialect.closes_reasoning or self._closed_by or self._reader is None or self._reader.answer:
            return False
        if self._wants_answer():
            self._close("answered_now")
        elif self._spent(self._reader):
            self._close("budget_spent")
        elif self._guard.looping:
            self._close("loop_broken")
        return self._closed_by is not None

    def _spent(self, reader: ReplyReader) -> bool:
        """Whether the reasoning has used up its budget; it may be over it by what one chunk holds."""
        params = self._request.params
        limit = reasoning_limit(params.max_tokens, params.reasoning_budget)
        return limit is not None and self._closed_by is None and not reader.answer and reader.reasoning_tokens >= limit

    def _wants_answer(self) -> bool:
        """Whether someone asked for the answer, and there is reasoning to answer from."""
        reader = self._reader
        can = self._profile.dialect.closes_reasoning and self._closed_by is None
        asked = self.generation.answer_now_asked and can and bool(self._reasoning())
        return asked and reader is not None and not reader.answer

    def _close(self, why: str) -> None:
        self._closed_by = why
        self.generation.put(Notice(why))

    async def _wait(self, trouble: FailedRequest) -> None:
        """Show how long it is until the next try, and wait; a stop ends it."""
        assert trouble.wait is not None
        self.generation.put(Queued(0, trouble.wait))
        self._reading = asyncio.ensure_future(asyncio.sleep(trouble.wait))
        try:
            await self._reading
        except asyncio.CancelledError:
            if self._closing or not (self.generation.stop_asked or self._lost):
                raise
            self._lost = False
        finally:
            self._reading = None

    def _reasoning(self) -> str:
        """All reasoning so far, that of the beginning included."""
        resume = self._request.prompt.resume
        return ((resume.reasoning or "") if resume else "") + self.generation.reasoning

    def _show_lone_reasoning(self, reader: ReplyReader, resume: Resume | None) -> None:
        """Some servers call all words reasoning where the model did not think: an answer is never left empty for that."""
        if self._finish == "stop" and resume is None and reader.reasoning and not reader.answer and not reader.marked:
            self.generation.put(Notice("remote_only_reasoning"))
            self._tell([Answer(self._reasoning(), 0)])

    def _tell(self, pieces: list[ReasoningPiece]) -> None:
        for piece in gathered(pieces):
            if isinstance(piece, Reasoning):
                for letter in piece.text:
                    self._guard.feed(ord(letter))
            self._written_in_stream = True
            self.generation.put(piece)

    def _end(self, why: FinishReason) -> None:
        if why == "cancelled" and self._reader is not None:
            self._tell(self._reader.leave(cut=True))
        usage = self.generation.usage
        if why == "length" and usage.completion_tokens < self._request.params.max_tokens:
            self._around.learned(lambda known: lengthened(known, self._asked, usage))
            lowered = Notice(why_lowered(self._profile, self._asked, usage), {"limit": usage.completion_tokens})
            if lowered.key not in self._told:
                self.generation.put(lowered)
        self._estimate_prompt()
        self.generation.put(Finished(why))

    def _fail(self, trouble: FailedRequest) -> None:
        if refusal := trouble.refusal:
            self._around.learned(lambda known: with_context(known, refusal.limit))
            chosen = chosen_fields(self._request.params, self._profile)
            if name := refused_choice(self._profile, refusal, chosen):
                trouble = FailedRequest("parameter_not_supported", {"name": name, "server": self._server.address.host})
        if self._reader is not None and self._written_in_stream:
            self._tell(self._reader.leave())
        self._around.noticed(trouble)
        self._estimate_prompt()
        self.generation.put(Failed(trouble.key, trouble.values))

    def _estimate_prompt(self) -> None:
        """A server tells the prompt's tokens at the end, which a reply that is cut does not see."""
        if self._sent and not self.generation.usage.prompt_tokens:
            self.generation.count_prompt(reckoned_measure(self._request.prompt).total, estimated=True)
