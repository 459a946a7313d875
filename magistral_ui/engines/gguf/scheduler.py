"""Runs all replies on llama.cpp's server, from one thread that waits for their streams; it knows no prompts and no people.

Who has a slot is decided in `admission.py`, and what a stream's tokens mean in `reply.py`; here streams are opened and cut.
"""

import itertools
import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Keys

from magistral_ui.engines.gguf.admission import Slot, admit, common_prefix
from magistral_ui.engines.gguf.completion import CompletionStream, ConnectionLost, clearing_body
from magistral_ui.engines.gguf.images import ServerPrompt
from magistral_ui.engines.gguf.reply import GGUFReply, Next, SlotClearing
from magistral_ui.engines.gguf.reply_queue import ReplyQueue
from magistral_ui.engines.gguf.stream_selector import StreamSelector
from magistral_ui.engines.gguf.supervisor import LlamaServer
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.errors import Message

log = logging.getLogger(__name__)

DEATH_TIMEOUT = 5.0
"""Seconds after a lost connection in which a process that is dying is gone."""
DEATH_POLL = 0.02


class CompletionScheduler:
    """Feed it with `submit` from any thread; `serve` is the engine thread's loop, once for each server that is started."""

    def __init__(
        self,
        slots: int,
        capacity: int,
        begin: int,
        prompt_of: Callable[[Sequence], ServerPrompt],
        why_died: Callable[[], Message],
    ) -> None:
        """`capacity` is the pool's, in tokens; `begin` the token with which every text begins.

        `why_died` says why the server's process has ended, and may wait until that is known.
        """
        self._count, self._capacity, self._begin, self._prompt_of = slots, capacity, begin, prompt_of
        self._why_died = why_died
        self._queue = ReplyQueue()
        self._running: list[GGUFReply] = []
        self._slots: list[Slot] = []
        self._turns = itertools.count(1)
        self._died = False
        self._streams: StreamSelector[GGUFReply | SlotClearing] = StreamSelector()

    def submit(self, reply: GGUFReply) -> None:
        """Let `reply` wait for its turn. How many may wait is decided before they get here; raises NotReady after `close`."""
        self._queue.append(reply)
        self.wake()

    def wake(self) -> None:
        """Look again: someone pressed stop or answer-now."""
        self._streams.wake()

    def forget(self, visitor: str) -> list[GGUFReply]:
        """Erase what the slots hold of a visitor. Returns the replies that wait or run, after whose end the rest is erased."""
        live = self._queue.live_of(visitor)
        for reply in live:
            reply.forgotten = True
        for slot in self._slots:
            if slot.visitor == visitor:
                slot.forgotten = True
        self.wake()
        return live

    def reusable(self, visitor: str, keys: Keys[int]) -> int:
        """Tokens at the beginning of `keys` that a slot of the visitor holds; the last one of a prompt is always read again."""
        slots = [slot for slot in self._slots if slot.visitor == visitor and not slot.forgotten]
        held = {id(reply.keys): reply.held for reply in tuple(self._running)}
        common = (min(common_prefix(slot.keys, keys), held.get(id(slot.keys), len(keys))) for slot in slots)
        return max(0, min(max(common, default=0), len(keys) - 1))

    def close(self) -> None:
        """End `serve`; all replies end as cancelled."""
        self._queue.close()
        self.wake()

    def lose(self) -> None:
        """The server's process has ended: `serve` returns, and running replies fail."""
        self._died = True
        self.wake()

    def serve(self, server: LlamaServer) -> None:
        """Write replies until `close`, or until the server is lost; those that wait then wait for the next one."""
        self._slots = [Slot(number) for number in range(self._count)]
        self._died = not server.alive
        try:
            while not self._queue.closed and not self._died:
                self._cancel_stopped()
                self._clear_forgotten(server)
                self._admit(server)
                for ready in self._streams.wait():
                    self._serve_ready(ready, server)
        finally:
            self._leave_server()

    def finish(self, failure: Message | None = None) -> None:
        """End the replies that wait, as failed if there is a `failure`, else as cancelled. Called after the last `serve`."""
        self._queue.close()
        for reply in self._queue.take_all():
            if failure is None or reply.stopped:
                reply.sequence.finish("cancelled")
            else:
                reply.sequence.fail(failure.key, failure.values)
        self._streams.close()

    def _serve_ready(self, ready: "GGUFReply | SlotClearing", server: LlamaServer) -> None:
        stream = ready.stream
        if stream is None or self._died:
            return
        try:
            if stream.sending:
                stream.send()
                self._streams.watch(stream, ready)
            elif isinstance(ready, SlotClearing):
                stream.read()
                if stream.stop_type:
                    self._cleared(ready)
            else:
                self._read(ready)
        except ConnectionLost as error:
            self._lost(ready, error, server)
        except Exception as error:
            self._fail(ready, error, server)

    def _read(self, reply: GGUFReply) -> None:
        was_begun = reply.begun
        pieces = reply.read()
        if reply.begun and not was_begun:
            slot = self._slots[reply.slot or 0]
            slot.visitor, slot.keys, slot.held = reply.visitor, reply.keys, reply.granted
            reply.reuses = True
        then = reply.take(pieces)
        if then is Next.STREAM:
            self._pause(reply)
        elif then is Next.NOTHING:
            self._release(reply)

    def _lost(self, ready: "GGUFReply | SlotClearing", error: Exception, server: LlamaServer) -> None:
        """A connection has ended: with the process, or alone."""
        end = time.monotonic() + DEATH_TIMEOUT
        while not self._died and time.monotonic() < end:
            self._died = not server.alive
            time.sleep(DEATH_POLL)
        if not self._died:
            self._fail(ready, error, server)

    def _fail(self, ready: "GGUFReply | SlotClearing", error: Exception, server: LlamaServer) -> None:
        log.error("a request to llama.cpp failed", exc_info=error)
        if isinstance(ready, SlotClearing):  # it would hold what it is to forget, and be asked again without end
            self._cleared(ready)
            self._died = True
            server.end_silent()
            return
        self._release(ready)
        if not ready.sequence.generation.ended:
            ready.sequence.fail("generation_failed")

    def _leave_server(self) -> None:
        """Cut all streams. Running replies end, but those of which the server had read nothing wait for the next one."""
        running, self._running = self._running, []
        crash = None if self._queue.closed else self._why_died()
        for ready in (*running, *self._streams.watched()):
            if ready.stream is not None:
                self._streams.forget(ready.stream)
                ready.stream.close()
        self._slots = []
        for reply in reversed(running):
            reply.stream, reply.slot = None, None
            if reply.sequence.generation.ended:
                continue
            if crash is None or self._queue.closed or reply.stopped:
                reply.sequence.finish("cancelled")
            elif reply.begun or reply.sequence.written:
                reply.sequence.fail(crash.key, crash.values)
            else:
                self._queue.put_back(reply)

    def _cancel_stopped(self) -> None:
        stopped = self._queue.take_stopped()
        for reply in [reply for reply in self._running if reply.stopped]:
            self._release(reply)
            stopped.append(reply)
        for reply in stopped:
            reply.sequence.finish("cancelled")

    def _admit(self, server: LlamaServer) -> None:
        while not self._died:
            waiting = self._queue.waiting()
            if not waiting and not any(reply.paused for reply in self._running):
                break
            step = admit(waiting, self._running, self._slots, self._capacity)
            for reply in step.preempt:
                self._preempt(reply)
            for number in step.clear:
                self._clear(self._slots[number], server)
            for reply in step.extend:
                self._open(reply, server)
            for reply, number, reuses in step.start:
                if not self._died:
                    self._start(reply, number, reuses=reuses)
                    self._open(reply, server)
            if not (step.preempt or step.extend or step.start):
                break
        self._queue.tell_positions()

    def _start(self, reply: GGUFReply, number: int, *, reuses: bool) -> None:
        self._queue.remove(reply)
        slot = self._slots[number]
        if not reuses:  # whose tokens it holds is uncertain until the server has begun
            slot.visitor, slot.keys = None, ()
        slot.busy, slot.used = True, next(self._turns)
        reply.slot, reply.admitted, reply.reuses, reply.held = number, slot.used, reuses, 0
        reply.sequence.leave_queue()
        self._running.append(reply)

    def _open(self, reply: GGUFReply, server: LlamaServer) -> None:
        """Open the reply's next stream, for which there is room."""
        slot = self._slots[reply.slot or 0]
        slot.held = max(slot.held, reply.needed)
        try:
            prompt = reply.next_prompt(self._prompt_of, self._capacity - self._count)
            if prompt is None:
                self._release(reply)
                return
            if reply.needed > slot.held:  # by tokens that were forced: it is admitted anew
                return
            reply.open(server, prompt.value)
            assert reply.stream is not None
            self._streams.watch(reply.stream, reply)
        except (ConnectionLost, OSError) as error:
            self._lost(reply, error, server)
        except Exception as error:
            self._fail(reply, error, server)

    def _pause(self, reply: GGUFReply) -> None:
        """End the reply's stream; it keeps its slot, and waits for its next one."""
        if reply.stream is not None:
            self._streams.forget(reply.stream)
            if reply.stream.stop_type:
                self._slots[reply.slot or 0].held = reply.stream.total
        reply.cut()

    def _release(self, reply: GGUFReply) -> None:
        """Take the reply's slot back; the next turn finds its tokens there."""
        self._pause(reply)
        slot = self._slots[reply.slot or 0]
        slot.busy = False
        if slot.keys is reply.keys:  # they may grow elsewhere
            slot.keys = reply.keys[: reply.held]
        if (
            reply.forgotten or slot.visitor is None
        ):  # the server may not even have begun: then it holds what somebody left there
            slot.forgotten = True
        reply.slot = None
        self._running.remove(reply)

    def _preempt(self, reply: GGUFReply) -> None:
        self._release(reply)
        reply.note_redraw()
        self._queue.put_back(reply)

    def _clear_forgotten(self, server: LlamaServer) -> None:
        for slot in self._slots:
            if slot.forgotten and slot.idle:
                self._clear(slot, server)

    def _clear(self, slot: Slot, server: LlamaServer) -> None:
        slot.clearing, slot.forgotten, slot.visitor, slot.keys = True, False, None, ()
        try:
            clearing = SlotClearing(slot, CompletionStream(server, clearing_body(slot.number, self._begin)))
        except ConnectionLost:
            self._died = self._died or not server.alive
            slot.clearing = False
            return
        self._streams.watch(clearing.stream, clearing)

    def _cleared(self, clearing: SlotClearing) -> None:
        self._streams.forget(clearing.stream)
        clearing.stream.close()
        clearing.slot.clearing = False
        if clearing.stream.stop_type:
            clearing.slot.held = 1
