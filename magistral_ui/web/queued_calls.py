"""Tracks API calls in Gradio's queue: whose they are, how many there are, and whether anybody reads their results.

It does not know what they are about. Gradio itself runs a call that nobody reads, keeps its messages forever, and drops
the oldest once there are too many.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anyio import move_on_after
from gradio.queueing import Queue

from magistral_ui.client import CLIENT, Client
from magistral_ui.fairness import Quota
from magistral_ui.sessions.limits import Limits
from magistral_ui.web.client_address import client_of

MAX_CALLS_PER_VISITOR, MAX_CALLS_PER_ADDRESS, MAX_CALLS = 8, 32, 200
"""Calls allowed in addition to the running replies: some wait for their reader, others were refused and say why."""
FORGET_RETRY_SECONDS = 0.5
"""Seconds between two checks whether a call without a reader has ended."""


class TooManyCalls(Exception):
    """The caller has too many calls in the queue, or everybody together has (`full`)."""

    def __init__(self, *, full: bool) -> None:
        super().__init__(full)
        self.full = full


class QueuedCalls:
    """All API calls of one app; used in its event loop only.

    A session is what Gradio calls a reader of messages: one of gradio_client, or a single call of the plain HTTP interface.
    """

    def __init__(self, queue: Callable[[], Queue], limits: Limits) -> None:
        """`queue` returns the app's queue, which Gradio may replace until the app is served."""
        self._queue, self.patience = queue, float(max(1, limits.follow_seconds))
        self.max_calls = limits.replies_in_all + MAX_CALLS
        self._quota = Quota(
            in_all=self.max_calls,
            of_visitor=limits.replies + MAX_CALLS_PER_VISITOR,
            of_address=limits.replies_per_address + MAX_CALLS_PER_ADDRESS,
        )
        self._sessions: dict[str, Client] = {}
        """Sessions of which Gradio holds messages, and the clients that began them."""
        self._beginning: list[Client] = []
        """The clients of calls that are about to enter the queue."""
        self._readers: Counter[str] = Counter()
        self._awaited: dict[str, asyncio.Event] = {}

    @contextmanager
    def place(self) -> Iterator[Callable[[str], None]]:
        """Admit one more call of this caller; yields a function to call with its session. Raises TooManyCalls."""
        caller = CLIENT.get()
        self._check(caller)
        self._beginning.append(caller)
        try:
            yield lambda session: self._begun(session, caller)
        finally:
            self._beginning.remove(caller)

    @contextmanager
    def reading(self, session: str) -> Iterator[None]:
        """Record that somebody reads this session's messages."""
        self._readers[session] += 1
        if come := self._awaited.pop(session, None):
            come.set()
        try:
            yield
        finally:
            self._readers[session] -= 1
            if not self._readers[session]:
                del self._readers[session]
                self._forget(session)

    def is_known(self, session: str) -> bool:
        """Whether there is anything to read: Gradio itself would notice only in the middle of its response.

        After a session was read to its end, its messages may remain for a moment; a second reader would then wait forever.
        """
        queue = self._queue()
        return session in queue.pending_messages_per_session and bool(queue.pending_event_ids_session.get(session))

    def is_read(self, session: str) -> bool:
        return session in self._readers

    async def is_taken_up(self, session: str) -> bool:
        """Wait until somebody reads this session's messages; returns whether that happened in time."""
        if not self.is_read(session):
            come = self._awaited.setdefault(session, asyncio.Event())
            with move_on_after(self.patience):
                await come.wait()
        return self.is_read(session)

    def __len__(self) -> int:
        return len(self._sessions)

    def _check(self, caller: Client) -> None:
        events = [client_of(event.request.scope) for event in list(self._queue().event_ids_to_events.values())]
        for held in (events, self._sessions.values()):
            taken = [(each.browser, each.address) for each in (*self._beginning, *held)]
            if reached := self._quota.reached(taken, caller.browser, caller.address):
                raise TooManyCalls(full=reached == "in_all")

    def _begun(self, session: str, caller: Client) -> None:
        self._sessions.setdefault(session, caller)
        asyncio.get_running_loop().call_later(self.patience, self._forget, session)

    def _forget(self, session: str) -> None:
        """Free what Gradio holds of a session that nobody reads, once none of its calls is running."""
        if session not in self._sessions or self.is_read(session):
            return  # called again when the reader leaves
        queue = self._queue()
        if any(event.session_hash == session for event in list(queue.event_ids_to_events.values())):
            asyncio.get_running_loop().call_later(FORGET_RETRY_SECONDS, self._forget, session)
            return
        del self._sessions[session]
        self._awaited.pop(session, None)
        queue.pending_messages_per_session.pop(session, None)
        queue.pending_event_ids_session.pop(session, None)
