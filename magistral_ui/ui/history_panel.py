"""The actions of the list of conversations, as plain functions; sessions/history/ decides what is kept."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from magistral_ui.chat.events import Json, alert_value, failure_value
from magistral_ui.errors import ImportRefused, MessageGone, TooManyRequests
from magistral_ui.sessions.history import catalog
from magistral_ui.sessions.history.search import ConversationSummary
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import MAX_ID_LENGTH, TabState, place_fields
from magistral_ui.ui.chat import Chat, is_whole
from magistral_ui.ui.import_export import EXPORT_FORMATS, ExportPurpose, ImportPurpose, name_of

MAX_QUERY_LENGTH = 200
"""Characters of a search; the rest is ignored."""
Turned = tuple[TabState, Json, Json, Json]
"""Where the tab is, what its conversation shows, the composer's properties, and the list."""


class HistoryPanel:
    """What the list's actions do, as plain functions: values in, values out.

    Every answer carries the whole list, with the times between which it was read: answers may overtake each other, and the page
    shows the newest.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat, self.visitors = chat, chat.visitors

    def listing(self, data: Json, visitor: object, **more: Any) -> Json:
        """The list. While the visitor searches it has no entries: the page then asks for the matches by `refresh`."""
        begun = time.perf_counter_ns()
        found = None if _query(data) else self.visitors.listing(visitor)
        return self._value(data, visitor, begun, found, **more)

    async def refresh(self, data: Json, visitor: object) -> Json:
        """The list, or what a search finds; a search that waits for its turn blocks no thread."""
        if not _query(data):
            return await asyncio.to_thread(self.listing, data, visitor)
        begun = time.perf_counter_ns()
        try:
            found = await asyncio.wrap_future(self.visitors.search(visitor, _query(data)))
        except TooManyRequests as error:
            return self._value(data, visitor, begun, (), complete=False, refused=alert_value(error))
        return self._value(data, visitor, begun, found.entries, complete=found.complete)

    def _value(
        self, data: Json, visitor: object, begun: int, entries: Sequence[ConversationSummary] | None, **more: Any
    ) -> Json:
        trouble = self.visitors.save_error
        return {
            "server": self.chat.server,
            "begun": begun,
            "read": time.perf_counter_ns(),
            "entries": None if entries is None else [asdict(entry) for entry in entries],
            "complete": True,
            "writing": sorted(self.visitors.busy_conversations(visitor)),
            "query": _query(data),
            "trouble": failure_value(trouble.key, trouble.values) if trouble else None,
            "durable": self.visitors.durable,
            **more,
        }

    def open(self, data: Json, visitor: object) -> Turned:
        wanted = {**visitor, "conversation": _id(data)} if isinstance(visitor, dict) else visitor
        if self.visitors.find(wanted) is None:
            gone = alert_value(MessageGone("conversation_gone"))
            return self._turned(visitor, *self.visitors.open(visitor), data, alert=gone)
        return self._turned(visitor, *self.visitors.open(wanted), data)

    def rename(self, data: Json, visitor: object) -> Json:
        self.visitors.change(visitor, _id(data), catalog.rename, str(data.get("title") or ""))
        return self.listing(data, visitor)

    def pin(self, data: Json, visitor: object) -> Json:
        self.visitors.change(visitor, _id(data), catalog.pin, data.get("pinned") is True)
        return self.listing(data, visitor)

    def save(self, data: Json, visitor: object) -> Json:
        """A ticket for downloading one conversation as a file, or all of them as JSON."""
        format, wanted = data.get("format"), (_id(data),) if data.get("id") else ()
        if not isinstance(format, str) or format not in EXPORT_FORMATS or not (wanted or format == "json"):
            return self.listing(data, visitor)
        title = next((e.title for e in self.visitors.listing(visitor) if e.id in wanted), "")
        token = self.visitors.tickets.issue(ExportPurpose(place_fields(visitor), wanted, format))
        return self.listing(data, visitor, ticket={"does": "save", "token": token, "name": name_of(title, format)})

    def bring(self, data: Json, visitor: object) -> Json:
        """A ticket for uploading a file with conversations, whose size the browser has told."""
        size, limit_mb = data.get("size"), self.visitors.limits.import_mb
        if not is_whole(size) or size > limit_mb * 2**20:
            return self.listing(data, visitor, refused=alert_value(ImportRefused("import_too_large", limit=limit_mb)))
        token = self.visitors.tickets.issue(ImportPurpose(place_fields(visitor)))
        return self.listing(data, visitor, ticket={"does": "bring", "token": token})

    def remove(self, data: Json, visitor: object) -> Turned:
        """Delete a conversation; a tab that shows it gets an empty one."""
        removed = _id(data) if self.visitors.remove(visitor, _id(data)) else None
        return self._turned(visitor, *self.visitors.open(visitor), data, removed=removed)

    def restore(self, data: Json, visitor: object) -> Turned:
        """Undo the deletion of a conversation, and show it again if it was shown before."""
        restored = self.visitors.change(visitor, _id(data), catalog.restore)
        if restored and data.get("shown") is True:
            return self.open(data, visitor)
        return self._turned(visitor, *self.visitors.open(visitor), data)

    def forget(self, data: Json, visitor: object) -> Turned:
        """Delete everything of this visitor, who is a new visitor from then on."""
        clean, place, session = self.visitors.begin_anew(visitor)
        return self._turned(visitor, place, session, data, forgotten=clean)

    def _turned(
        self, visitor: object, place: TabState, session: Session, data: Json, alert: Json | None = None, **more: Any
    ) -> Turned:
        value = self.chat.value(session, visitor, alert=alert)
        return place, value, self.chat.composer(session), self.listing(data, place, **more)


def _query(data: Json) -> str:
    return str(data.get("query") or "")[:MAX_QUERY_LENGTH].strip()


def _id(data: Json) -> str:
    return str(data.get("id") or "")[:MAX_ID_LENGTH]
