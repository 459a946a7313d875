"""Stores one conversation as rows, writing only what has changed; it does not know about threads or the page."""

import dataclasses
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from typing import Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_core import to_jsonable_python

from magistral_ui.chat.conversation import AssistantMessage, ChatMessage, Conversation, UserMessage
from magistral_ui.chat.events import Answer, Finished, Notice, Reasoning, Reclassified, Usage
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Reply, ReplyBuilder, ReplyOrigin
from magistral_ui.engines.generation import Generation, RunningReply
from magistral_ui.export.document import Document
from magistral_ui.sessions.history.image_store import ImageStore
from magistral_ui.sessions.history.search import folded_message

T = TypeVar("T")
RECORD_VERSION = 1
"""Version of the JSON in the `record` columns. A field missing there keeps its default, and an unknown one is ignored, so that
records of older and newer versions can be read."""
MAX_TITLE_LENGTH = 80
CUT_OFF = Notice("cut_off")
"""The notice on a reply that was cut off because its process ended."""
OWN_COLUMNS = ("reasoning", "answer")
"""Texts with columns of their own, for the search."""


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """A conversation as it is stored, with the reply that is being written."""

    conversation: Conversation = field(default_factory=Conversation)
    written: Mapping[int, ReplyOrigin] = field(default_factory=dict)
    running: RunningReply | None = None
    changed: float = field(default_factory=time.time)
    """When its messages changed last, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class MessageFields:
    """The part of a message in its record; id, texts and images have columns and rows of their own."""

    parent: int | None
    reply: Reply = field(default_factory=Reply)
    keep_reasoning: bool | None = None


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """The JSON stored with a message's texts."""

    role: Literal["user", "assistant"]
    message: MessageFields
    written: ReplyOrigin | None = None


@dataclass(frozen=True, slots=True)
class DraftPiece:
    """An addition to a draft, with the reply's counts and times so far."""

    number: int
    reasoning: str
    answer: str
    usage: Usage
    closed: bool = False
    notices: tuple[Notice, ...] = ()
    reclassified: bool = False
    """Whether the answer in earlier pieces was in fact reasoning."""


def save(
    db: sqlite3.Connection,
    files: ImageStore,
    visitor: str,
    id: str,
    before: Conversation | None,
    now: StoredConversation,
) -> None:
    """Change the rows from `before` to `now`, and begin a new draft if a reply is running."""
    conversation, old = now.conversation, before.messages if before is not None else {}
    if not conversation.messages:
        db.execute("DELETE FROM conversations WHERE id = ? AND visitor = ?", (id, visitor))
        return
    chosen = {str(parent): child for parent, child in conversation.chosen.items()}
    state = json.dumps({"v": RECORD_VERSION, "last_id": conversation.last_id, "chosen": chosen})
    has_changed = any(old.get(each) is not message for each, message in conversation.messages.items())
    changed = now.changed if has_changed or len(old) != len(conversation.messages) else None
    _save_head(db, visitor, id, title_of(conversation), state, changed)
    if before is None:
        db.execute("DELETE FROM messages WHERE conversation = ?", (id,))
    for gone in old.keys() - conversation.messages.keys():
        db.execute("DELETE FROM messages WHERE conversation = ? AND id = ?", (id, gone))
    for each, message in conversation.messages.items():
        if old.get(each) is not message:
            _save_message(db, files, id, message, now.written.get(each))
    db.execute("DELETE FROM drafts WHERE conversation = ?", (id,))
    if now.running is not None:
        record = {"v": RECORD_VERSION, **to_json(now.running, "generation")}
        db.execute("INSERT INTO drafts(conversation, record) VALUES (?, ?)", (id, _dump(record)))


def add_piece(db: sqlite3.Connection, id: str, piece: DraftPiece) -> None:
    record = to_json(piece, "number", *OWN_COLUMNS)
    values = (id, piece.number, sound(piece.reasoning), sound(piece.answer), _dump({"v": RECORD_VERSION, **record}))
    db.execute(
        "INSERT OR REPLACE INTO pieces(conversation, number, reasoning, answer, record) VALUES (?,?,?,?,?)", values
    )


def load(db: sqlite3.Connection, files: ImageStore, visitor: str, id: str) -> StoredConversation | None:
    """The conversation, if it is the visitor's. A draft is loaded as a reply that was cut off."""
    head = db.execute(
        "SELECT state FROM conversations WHERE id = ? AND visitor = ? AND deleted IS NULL", (id, visitor)
    ).fetchone()
    if head is None:
        return None
    messages: dict[int, ChatMessage] = {}
    written: dict[int, ReplyOrigin] = {}
    read: dict[str, bytes | None] = {}
    rows = db.execute(
        "SELECT row, id, text, reasoning, record FROM messages WHERE conversation = ? ORDER BY id", (id,)
    ).fetchall()
    for row, each, text, reasoning, stored in rows:
        record = from_json(MessageRecord, stored)
        parent = record.message.parent
        if record.role == "user":
            messages[each] = UserMessage(each, parent, text, _images(db, files, row, read))
        elif parent is None:
            raise ValueError("a reply to nobody")
        else:
            reply = replace(record.message.reply, answer=text, reasoning=reasoning)
            messages[each] = AssistantMessage(each, parent, reply, record.message.keep_reasoning)
            written[each] = record.written or ReplyOrigin("")
    state = json.loads(head[0])
    chosen = {None if key == "None" else int(key): value for key, value in state["chosen"].items()}
    return StoredConversation(Conversation(messages, chosen, state["last_id"]), written, _load_draft(db, id))


def load_document(db: sqlite3.Connection, files: ImageStore, visitor: str, id: str) -> Document | None:
    kept = load(db, files, visitor, id)
    head = db.execute("SELECT title, created, changed FROM conversations WHERE id = ?", (id,)).fetchone()
    if kept is None:
        return None
    created, changed = (datetime.fromtimestamp(seconds, timezone.utc) for seconds in head[1:])
    return Document(kept.conversation, head[0], created, changed)


def save_document(
    db: sqlite3.Connection, files: ImageStore, visitor: str, id: str, document: Document, dated: bool = True
) -> None:
    """Store an imported conversation as a new one of the visitor's; `dated` keeps the times in the file."""
    save(db, files, visitor, id, None, StoredConversation(document.conversation))
    title = sound(" ".join(document.title.split())[:MAX_TITLE_LENGTH])
    if title and title != title_of(document.conversation):
        db.execute("UPDATE conversations SET title = ?, named = 1 WHERE id = ?", (title, id))
    for column, moment in (("created", document.created), ("changed", document.updated)):
        if moment is not None and dated:
            seconds = min(max(moment.timestamp(), 0.0), time.time())
            db.execute(f"UPDATE conversations SET {column} = ? WHERE id = ?", (seconds, id))


def title_of(conversation: Conversation) -> str:
    """The default title of a chat: the beginning of the first message; empty if that has only images."""
    first = next((m for m in conversation.messages.values() if isinstance(m, UserMessage)), None)
    line = " ".join((first.text if first else "")[: 4 * MAX_TITLE_LENGTH].split())
    return sound(line if len(line) <= MAX_TITLE_LENGTH else line[: MAX_TITLE_LENGTH - 1].rstrip() + "…")


def _save_head(db: sqlite3.Connection, visitor: str, id: str, title: str, state: str, changed: float | None) -> None:
    now = time.time()
    known = db.execute("SELECT visitor FROM conversations WHERE id = ?", (id,)).fetchone()
    if known is None:
        db.execute(
            "INSERT INTO conversations(id, visitor, title, created, changed, state) VALUES (?,?,?,?,?,?)",
            (id, visitor, title, now, now, state),
        )
        return
    if known[0] != visitor:
        raise ValueError("the conversation is another visitor's")
    db.execute("UPDATE conversations SET state = ? WHERE id = ?", (state, id))
    db.execute("UPDATE conversations SET title = ? WHERE id = ? AND NOT named AND title <> ?", (title, id, title))
    if changed is not None:
        db.execute("UPDATE conversations SET changed = ? WHERE id = ?", (changed, id))


def _save_message(
    db: sqlite3.Connection, files: ImageStore, id: str, message: ChatMessage, written: ReplyOrigin | None
) -> None:
    if isinstance(message, UserMessage):
        text, reasoning = message.text, ""
        record: dict[str, Any] = {"role": "user", "message": to_json(message, "id", "text", "images")}
    else:
        text, reasoning = message.reply.answer, message.reply.reasoning
        said = to_json(message, "id", "reply") | {"reply": to_json(message.reply, *OWN_COLUMNS)}
        record = {"role": "assistant", "message": said, "written": to_json(written or ReplyOrigin(""))}
    text, reasoning = sound(text), sound(reasoning)
    (row,) = db.execute(
        "INSERT INTO messages(conversation, id, text, reasoning, folded, record) VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE"
        " SET text = excluded.text, reasoning = excluded.reasoning, folded = excluded.folded, record = excluded.record"
        " RETURNING row",
        (id, message.id, text, reasoning, folded_message(text, reasoning), _dump({"v": RECORD_VERSION, **record})),
    ).fetchone()
    db.execute("DELETE FROM pictures WHERE message = ?", (row,))
    for place, image in enumerate(message.images if isinstance(message, UserMessage) else ()):
        files.put(image.digest, image.data)
        facts = _dump(to_json(image, "data", "digest"))
        db.execute("INSERT INTO pictures VALUES (?,?,?,?)", (row, place, image.digest, facts))


def _images(
    db: sqlite3.Connection, files: ImageStore, row: int, read: dict[str, bytes | None]
) -> tuple[ImageFile, ...]:
    """The images of a message; `read` holds those already loaded, so that a repeated image is in memory only once."""
    rows = db.execute("SELECT digest, record FROM pictures WHERE message = ? ORDER BY place", (row,)).fetchall()
    for digest, _ in rows:
        if digest not in read:
            read[digest] = files.get(digest)
    # If a file has been deleted by hand, only that image is missing.
    found = ((digest, record, read[digest]) for digest, record in rows)
    return tuple(from_json(ImageFile, r, digest=d, data=data) for d, r, data in found if data is not None)


def _load_draft(db: sqlite3.Connection, id: str) -> RunningReply | None:
    """The reply that was being written, as a generation that was cut off."""
    draft = db.execute("SELECT record FROM drafts WHERE conversation = ?", (id,)).fetchone()
    if draft is None:
        return None
    pieces = db.execute(
        "SELECT number, reasoning, answer, record FROM pieces WHERE conversation = ? ORDER BY number", (id,)
    ).fetchall()
    read = [from_json(DraftPiece, r, number=n, reasoning=t, answer=a) for n, t, a, r in pieces]
    return from_json(RunningReply, draft[0], generation=cut_generation(read))


def cut_generation(pieces: Sequence[DraftPiece]) -> Generation:
    """A generation that was cut off after `pieces`."""
    generation, draft = Generation(), ReplyBuilder()
    usage = pieces[-1].usage if pieces else Usage()
    for piece in pieces:
        if piece.reclassified:
            draft.feed(Reclassified())
        draft.feed(Reasoning(piece.reasoning))
        draft.feed(Answer(piece.answer))
    reasoning, answer = draft.take_texts()
    put: Callable[[Any], None] = generation.put
    if reasoning:
        put(Reasoning(reasoning, usage.reasoning_tokens))
    if answer or (pieces and pieces[-1].closed):
        put(Answer(answer, usage.answer_tokens))
    for notice in (*(notice for piece in pieces for notice in piece.notices), CUT_OFF):
        put(notice)
    put(Finished("cancelled", replace(usage)))
    return generation


def _dump(data: Any) -> str:
    return sound(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def sound(text: str) -> str:
    """`text` as SQLite can store it: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_json(value: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass as dicts, lists and plain values, except those named in `without`."""
    names = [field.name for field in dataclasses.fields(value) if field.name not in without]
    return {name: to_jsonable_python(getattr(value, name)) for name in names}


def from_json(kind: type[T], record: str, /, **given: Any) -> T:
    """The dataclass `kind` from the JSON that `to_json` made, and the fields in `given`. Raises ValueError for bad JSON."""
    model = _stored(kind, frozenset(given))  # type: ignore[arg-type]  # a class can be hashed
    return kind(**given, **dict(model.model_validate_json(record)))


@cache
def _stored(kind: Any, given: frozenset[str]) -> type[BaseModel]:
    """A strict model of the fields in the JSON, whose errors do not show content."""
    hints = get_type_hints(kind)
    names = [each for each in dataclasses.fields(kind) if each.name not in given]
    stored: dict[str, Any] = {each.name: (hints[each.name], _default(each)) for each in names}
    return create_model(str(kind.__name__), __config__=ConfigDict(strict=True, hide_input_in_errors=True), **stored)


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is dataclasses.MISSING else field.default
