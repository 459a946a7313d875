"""Turns a session's conversation into the values that the page's own components draw; it does not draw or send them."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from magistral_ui.chat.conversation import AssistantMessage, Conversation, Message, UserMessage
from magistral_ui.chat.events import Notice, Usage
from magistral_ui.chat.pictures import Picture
from magistral_ui.errors import MagistralUIError
from magistral_ui.models.cards import ModelCard
from magistral_ui.sessions.session import Session, may_continue

Json = dict[str, Any]
THUMBNAIL = 480
"""Pixels of a thumbnail's longer side: twice what is shown, for screens of high density."""
ASSETS = Path(str(resources.files("magistral_ui.ui") / "assets"))


def page_value(session: Session | None, card: ModelCard, thumbnails: "Thumbnails") -> Json:
    """The finished turns of the chosen branch, and the id of the generation that runs."""
    welcome = {"demo": card.demo, "description": card.description_key, "examples": examples_value(card)}
    if session is None:
        return {"turns": [], "live": None, "welcome": welcome}
    conversation, running = session.look()
    turns = [
        {**turn_value(message, session, thumbnails), "branch": branch_value(conversation, message)}
        for message in conversation.path()
    ]
    live, continues = (running.generation.id, running.continues) if running else (None, None)
    return {"turns": turns, "live": live, "continues": continues, "welcome": welcome}


def branch_value(conversation: Conversation, message: Message) -> Json:
    """Which of its siblings a message is, and who is beside it."""
    siblings = conversation.siblings(message.id)
    at = siblings.index(message.id)
    return {
        "number": at + 1,
        "count": len(siblings),
        "previous": siblings[at - 1] if at else None,
        "next": siblings[at + 1] if at + 1 < len(siblings) else None,
    }


def turn_value(message: Message, session: Session, thumbnails: "Thumbnails") -> Json:
    """One finished turn."""
    if isinstance(message, UserMessage):
        pictures = [thumbnails.value(picture) for picture in message.pictures]
        return {"id": message.id, "role": "user", "text": message.text, "pictures": pictures}
    return _reply_value(message, session)


def _reply_value(message: AssistantMessage, session: Session) -> Json:
    reply, written = message.reply, session.written(message.id)
    return {
        "id": message.id,
        "role": "assistant",
        "generation": written.generation,
        "reasoning": reply.reasoning,
        "answer": reply.answer,
        "closed": reply.reasoning_closed,
        "ended": reply.finish_reason,
        "may_continue": may_continue(reply),
        "failure": failure_value(reply.failure, reply.failure_values) if reply.failure else None,
        "notices": notices_value(written.notices),
        "usage": usage_value(reply.usage),
        "params": asdict(reply.params) if reply.params else None,
        "model": reply.model,
    }


def usage_value(usage: Usage) -> Json:
    """Counts and seconds, the derived ones too."""
    derived = {"completion_tokens": usage.completion_tokens, "tokens_per_second": usage.tokens_per_second}
    return {**asdict(usage), **derived}


def notices_value(notices: Sequence[Notice]) -> list[Json]:
    """What there is to tell about a reply."""
    return [{"key": notice.key, "values": notice.values} for notice in notices]


def failure_value(key: str, values: Mapping[str, str | int | float]) -> Json:
    """A failure whose sentence the browser writes in its own language."""
    return {"key": key, "values": dict(values)}


def alert_value(error: MagistralUIError) -> Json:
    """The failure that `error` stands for."""
    return failure_value(error.sentence_key, error.values)


class Thumbnails:
    """Small pictures as data URLs, so that no address of a visitor's picture exists; made once for each content."""

    def __init__(self, kept: int = 200) -> None:
        self._urls: dict[str, str] = {}
        self._kept = kept

    def value(self, picture: Picture) -> Json:
        """The thumbnail and what to say of the picture."""
        url = self._urls.get(picture.digest)
        if url is None:
            data = base64.b64encode(picture.thumbnail(THUMBNAIL)).decode("ascii")
            url = f"data:image/jpeg;base64,{data}"
            if len(self._urls) >= self._kept:
                self._urls.pop(next(iter(self._urls)), None)
            self._urls[picture.digest] = url
        return {"src": url, "name": picture.name, "width": picture.width, "height": picture.height}


@cache
def examples() -> tuple[Mapping[str, str], ...]:
    """The examples to click: `text`, its `language`, and the file name of a `picture` where there is one."""
    return tuple(json.loads((ASSETS / "examples" / "examples.json").read_text(encoding="utf-8")))


def examples_value(card: ModelCard) -> list[Json]:
    """The examples that suit the model."""
    shown = [each for each in examples() if card.vision or "picture" not in each]
    return [{**each, "picture": _picture_url(each.get("picture"))} for each in shown]


def _picture_url(name: str | None) -> str | None:
    if name is None:
        return None
    data = base64.b64encode((ASSETS / "examples" / name).read_bytes()).decode("ascii")
    return f"data:image/png;base64,{data}"
