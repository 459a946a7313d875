"""Turns a conversation, and the model's state, into the values that the page's script draws; it neither draws nor sends them."""

import base64
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from operator import attrgetter

from cachetools import LRUCache, cachedmethod

from magistral_ui.chat.conversation import AssistantMessage, ChatMessage, Conversation, UserMessage
from magistral_ui.chat.events import Json, failure_value, notices_value, usage_value
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Provenance, may_continue, may_replay, same_model
from magistral_ui.engines.base import Broken, Engine, EngineStatus, Loading, ModelInfo, Ready, Unloaded
from magistral_ui.errors import ImageRefused, TooManyRequests
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.memory import TYPICAL_CONTEXT
from magistral_ui.sessions.session import Session
from magistral_ui.ui.asset_files import ASSETS

THUMBNAIL_SIDE = 480
"""Pixels of a thumbnail's longer side: twice what is shown, for screens of high density."""
MAX_THUMBNAILS = 200
RECENT_MESSAGES = 20
"""Messages at the end of a conversation that the page gets at once; it asks for earlier ones, and for reasoning."""
MAX_MESSAGES_PER_REQUEST = 40
LOAD_COMMAND = "python app.py --model mistralai/Magistral-Small-2509"
"""The reason that marks a model as remote: it may go away at any time, so the page keeps checking on it."""


def page_value(session: Session | None, card: ModelCard, thumbnails: "Thumbnails") -> Json:
    """The finished turns of the chosen branch, early ones only in outline, and the id of the running generation."""
    welcome = {"demo": card.demo, "description": card.description_key, "examples": examples_value(card)}
    if session is None:
        nothing: Json = {"conversation": None, "seen": 0, "turns": [], "live": None, "continues": None}
        return {**nothing, "unanswered": None, "sources": [], "welcome": welcome}
    conversation, running, seen = session.view()
    path, sources = conversation.path(), ReplySources(session.runs)
    far, near = path[:-RECENT_MESSAGES], path[-RECENT_MESSAGES:]
    values = [
        *(outline_value(message) for message in far),
        *(turn_value(message, session, thumbnails, sources) for message in near),
    ]
    turns = [
        {**value, "branch": branch_value(conversation, message)} for value, message in zip(values, path, strict=True)
    ]
    live, continues = (running.generation.id, running.continues) if running else (None, None)
    last = path[-1].id if path and isinstance(path[-1], UserMessage) and running is None else None
    return {
        "conversation": session.id,
        "seen": seen,
        "turns": turns,
        "live": live,
        "continues": continues,
        "unanswered": last,
        "sources": sources.values,
        "welcome": welcome,
    }


def more_value(session: Session, thumbnails: "Thumbnails", messages: Sequence[int], reasoning: int | None) -> Json:
    """Turns that the page has only in outline, and the reasoning of one reply."""
    known = session.snapshot()[0].messages
    sources = ReplySources(session.runs)
    turns = [
        turn_value(known[id], session, thumbnails, sources) for id in messages[:MAX_MESSAGES_PER_REQUEST] if id in known
    ]
    reply = known.get(reasoning) if reasoning is not None else None
    text = reply.reply.reasoning if isinstance(reply, AssistantMessage) else ""
    wanted = {"message": reasoning, "text": text}
    return {"conversation": session.id, "turns": turns, "sources": sources.values, "reasoning": wanted}


def outline_value(message: ChatMessage) -> Json:
    """An early turn: enough to reserve its place, and what may have changed about it."""
    if isinstance(message, UserMessage):
        return {"id": message.id, "role": "user", "outline": len(message.text)}
    kept = message.keep_reasoning
    return {"id": message.id, "role": "assistant", "outline": len(message.reply.answer), "keep_reasoning": kept}


def branch_value(conversation: Conversation, message: ChatMessage) -> Json | None:
    """The position of a message among its siblings, and its neighbours; None for one without siblings."""
    siblings = conversation.siblings(message.id)
    if len(siblings) == 1:
        return None
    at = siblings.index(message.id)
    return {
        "number": at + 1,
        "count": len(siblings),
        "previous": siblings[at - 1] if at else None,
        "next": siblings[at + 1] if at + 1 < len(siblings) else None,
    }


class ReplySources:
    """The sources of replies, each once, so that a long system prompt is not sent with every reply."""

    def __init__(self, here: Provenance) -> None:
        """`here` is the source of a reply that would be written now."""
        self._here, self._numbers = here, dict[Provenance, int]()

    def number(self, provenance: Provenance | None) -> int | None:
        if provenance is None:
            return None
        source = replace(provenance, prompt="", begun_reasoning=0, begun_answer=0, begun_closed=False, edited=False)
        return self._numbers.setdefault(source, len(self._numbers))

    @property
    def values(self) -> list[Json]:
        """All sources so far; `here` says whether the current model is the same."""
        return [{**asdict(each), "here": same_model(each, self._here)} for each in self._numbers]


def turn_value(message: ChatMessage, session: Session, thumbnails: "Thumbnails", sources: ReplySources) -> Json:
    """One finished turn. Of the reasoning only the length is told, as most of it is never opened."""
    if isinstance(message, UserMessage):
        images = [thumbnails.value(image) for image in message.images]
        return {"id": message.id, "role": "user", "text": message.text, "pictures": images}
    return _reply_value(message, session, sources)


def _reply_value(message: AssistantMessage, session: Session, sources: ReplySources) -> Json:
    reply, written = message.reply, session.written(message.id)
    return {
        "id": message.id,
        "role": "assistant",
        "generation": written.generation,
        "reasoning": utf16_length(reply.reasoning),
        "answer": reply.answer,
        "closed": reply.reasoning_closed,
        "ended": reply.finish_reason,
        "may_continue": may_continue(reply),
        "failure": failure_value(reply.failure, reply.failure_values) if reply.failure else None,
        "notices": notices_value(written.notices),
        "usage": usage_value(reply.usage),
        "params": asdict(reply.params) if reply.params else None,
        "model": reply.model,
        "source": sources.number(reply.provenance),
        "edited": reply.provenance is not None and reply.provenance.edited,
        "may_replay": may_replay(reply),
        "keep_reasoning": message.keep_reasoning,
    }


def utf16_length(text: str) -> int:
    """The length of `text` as JavaScript counts it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


class Thumbnails:
    """Thumbnails as data URLs, so that a visitor's image has no address of its own; made once for each content."""

    def __init__(self) -> None:
        self._urls: LRUCache[str, str] = LRUCache(MAX_THUMBNAILS)
        self._lock = threading.Lock()

    def value(self, image: ImageFile) -> Json:
        try:
            url = self._url(image)
        except (ImageRefused, TooManyRequests):
            url = ""  # the name is shown, and the image the next time
        return {"src": url, "name": image.name, "width": image.width, "height": image.height}

    @cachedmethod(attrgetter("_urls"), key=lambda _, image: image.digest, lock=attrgetter("_lock"))
    def _url(self, image: ImageFile) -> str:
        data = base64.b64encode(image.thumbnail(THUMBNAIL_SIDE)).decode("ascii")
        return f"data:image/jpeg;base64,{data}"


@cache
def examples() -> tuple[Mapping[str, str], ...]:
    """The examples to click: `text`, its `language`, the file name of a `picture` if any, and the models that it is `for`."""
    return tuple(json.loads((ASSETS / "examples" / "examples.json").read_text(encoding="utf-8")))


def examples_value(card: ModelCard) -> list[Json]:
    """The examples that suit the model: the demo model can do far less than the others."""
    whom = "demo" if card.demo else "others"
    suiting = (each for each in examples() if each.get("for", whom) == whom)
    shown = [each for each in suiting if card.vision or "picture" not in each]
    return [
        {"text": each["text"], "language": each["language"], "picture": _image_url(each.get("picture"))}
        for each in shown
    ]


@cache
def _image_url(name: str | None) -> str | None:
    if name is None:
        return None
    data = base64.b64encode((ASSETS / "examples" / name).read_bytes()).decode("ascii")
    return f"data:image/png;base64,{data}"


def model_value(engine: Engine) -> Json:
    card, status = engine.card, engine.status()
    value = {
        "card": card.name,
        "demo": card.demo,
        "vision": card.vision,
        "description": card.description_key,
        "command": LOAD_COMMAND,
    }
    match status:
        case Loading():
            return {**value, "state": "loading", **asdict(status)}
        case Broken(key, values):
            return {**value, "state": "broken", "key": key, "values": dict(values)}
        case Ready(info) | Unloaded(info):
            state = "ready" if isinstance(status, Ready) else "unloaded"
            return {**value, "state": state, "info": asdict(info) | {"plan": _plan(info)}, "mark": mark(status)}


def mark(status: EngineStatus) -> str:
    """A short digest of the state and the model: equal for equal ones."""
    return hashlib.sha256(repr(status).encode("utf-8", "replace")).hexdigest()[:16]


def _plan(info: ModelInfo) -> Json | None:
    """How the device's memory is divided, and how long the conversations are that `visitors` counts."""
    return asdict(info.plan) | {"usual": min(TYPICAL_CONTEXT, info.context_length)} if info.plan else None
