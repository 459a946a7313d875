"""The page's events that come with pictures: each waits for its turn without holding a thread; what they do is in chat.py."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import gradio as gr
from anyio import to_thread

from magistral_ui.errors import BadInput, TooManyRequests
from magistral_ui.ui.api.requests import client_of_request
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.context_meter import UNSEEN, refused_meter, size_of
from magistral_ui.ui.rendering import Json

T = TypeVar("T")


class ImageEvents:
    """`say`, `weigh` and `look` as Gradio calls them; without new pictures they are done like any other event."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def say(self, message: Json | None, visitor: object, request: gr.Request, *panel: Any) -> Any:
        """Send what is in the composer."""
        chat = self._chat
        try:
            return await self._turn(message, request, lambda: chat.say(message, visitor, *panel), sent=True)
        except TooManyRequests as error:
            refused = error
        return await to_thread.run_sync(lambda: chat.refuse(visitor, refused))

    async def weigh(self, message: Json | None, visitor: object, request: gr.Request, *panel: Any) -> Json:
        """What the message would cost. Only its pictures are looked at in turn: to count the rest a server may be asked."""
        try:
            await self._turn(message, request, lambda: self._measure(message))
        except TooManyRequests as error:
            return {**refused_meter(error), "of": size_of(message)}
        value: Json = await to_thread.run_sync(lambda: self._chat.weigh(message, visitor, *panel))
        return value

    async def look(self, event: gr.EventData, message: Json | None, request: gr.Request) -> Json:
        """Whether what is attached can be sent; what nobody had time to look at stays, and is looked at when it is sent."""
        data = event._data or {}
        try:
            value: Json = await self._turn(message, request, lambda: self._chat.look(data, message), sent=True)
            return value
        except TooManyRequests:
            return {"attached": [UNSEEN for _ in _files(message)], "number": data.get("number")}

    def _measure(self, message: Json | None) -> None:
        with suppress(BadInput):  # which is told when all is counted
            self._chat.uploads.measure(self._paths(message))

    def _paths(self, message: Json | None) -> list[str]:
        return _files(message)[: self._chat.visitors.limits.pictures]

    async def _turn(
        self, message: Json | None, request: gr.Request, act: Callable[[], Any], *, sent: bool = False
    ) -> Any:
        paths = self._paths(message)
        count = self._chat.uploads.count_new(paths, measured=not sent)
        if not paths or not (count or sent):
            return await to_thread.run_sync(act)
        work = self._chat.visitors.images
        return await work.run(client_of_request(request), count, act, gone=_gone(request))


def _gone(request: gr.Request) -> Callable[[], Any] | None:
    inner = request.request
    return inner.is_disconnected if inner is not None else None


def _files(message: Json | None) -> list[str]:
    return [str(path) for path in (message or {}).get("files") or ()]
