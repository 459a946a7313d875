"""The routes of the page's script: its actions, the stream (SSE) of a running reply, and the model's state.

Gradio could carry actions as events of its components. It would look functions up by number, send whole component values both
ways, and answer to components rather than to whoever asked. It could carry replies as a component's value: it would compare whole
values on both sides, recompile the template for each update, and reload the page when the connection drops. Here a request says
what is wanted, a response what has changed, and a reply is a stream of ten updates a second with only what is new.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from anyio import to_thread
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from magistral_ui.chat.events import Json, alert_value
from magistral_ui.chat.reply import Reply
from magistral_ui.engines.base import Engine, info_of
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import BadInput, MagistralUIError, Message, TooManyRequests
from magistral_ui.i18n.texts import sentence_for_client
from magistral_ui.sessions.live_view import watch
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.context_meter import UNSEEN, refused_meter, size_of
from magistral_ui.ui.history_panel import HistoryPanel
from magistral_ui.ui.model_actions import ModelActions
from magistral_ui.ui.rendering import mark, model_value
from magistral_ui.ui.sampling_panel import panel_value
from magistral_ui.web.client_address import client_of
from magistral_ui.web.error_responses import not_found, sentence_response
from magistral_ui.web.request_body import REFUSED_BODIES, JsonBodies
from magistral_ui.web.request_guard import ACTIONS_PATH
from magistral_ui.web.uploads import Ownership

log = logging.getLogger(__name__)
LIVE_PATH, MODEL_PATH = "/magistral/live", "/magistral/model"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Upload(BaseModel):
    """A file in the composer. What else Gradio knows about it is ignored."""

    path: str


class Composed(BaseModel):
    """What is in the composer."""

    model_config = ConfigDict(strict=True)
    text: str = ""
    files: list[Upload | None] = []


class Action(BaseModel):
    """The body of every action. `place` says whose it is and which conversation it is about, see sessions/visitors.py."""

    model_config = ConfigDict(strict=True, extra="forbid")
    place: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    """The settings panel's values, see sampling_panel.py."""
    data: dict[str, Any] = {}
    """What only this action needs, such as the id of a message."""
    message: Composed | None = None

    @property
    def composed(self) -> Json:
        if self.message is None:
            return {}
        return {"text": self.message.text, "files": [each.path for each in self.message.files if each is not None]}

    def keep_files(self, is_owned: Callable[[str], bool]) -> None:
        """Drop files that belong to others, as if they were missing."""
        if self.message is not None:
            self.message.files = [each for each in self.message.files if each is not None and is_owned(each.path)]


Act = Callable[[Action, Request], Awaitable[Json]]
TURN, LISTED = ("place", "turns", "composer"), ("place", "turns", "composer", "history")
"""Parts of an answer: where the tab is, its conversation, the composer's properties, and the list of conversations."""


def action_route(chat: Chat, bodies: JsonBodies, ownership: Ownership, models: ModelActions | None = None) -> Route:
    """The actions. `bodies` reads what they take; of the files in it, only those remain that are the client's by `ownership`."""
    actions = {
        **turn_actions(chat),
        **history_actions(HistoryPanel(chat)),
        **composer_actions(chat),
        **model_actions(chat),
        **owner_actions(models or ModelActions()),
    }

    async def act(request: Request) -> ASGIApp:
        with bodies.counted(request.receive) as receive:
            try:
                _, sent = await bodies.read(request.scope, receive)
                action = Action.model_validate(sent)
            except REFUSED_BODIES as error:  # ValueError: also what Action does not allow
                log.info("refused an action: %s", type(error).__name__)
                return bodies.refusal(error)
            known = actions.get("{part}/{name}".format(**request.path_params))
            if known is None:
                return not_found()
            action.keep_files(lambda path: ownership.owns("file", path))
            return await answered(known, action, request)

    async def answered(known: Act, action: Action, request: Request) -> Response:
        try:
            answer = await known(action, request)
        except MagistralUIError as error:
            answer = {"alert": alert_value(error)}
        except Exception:
            log.exception("an action of the page failed")
            return sentence_response(500, sentence_for_client(Message("unexpected")))
        if "turns" in answer:  # a remote model may have gone away or come back since
            answer["model"] = model_value(chat.engine)
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    return Route(f"{ACTIONS_PATH}{{part}}/{{name}}", act, methods=["POST"])


def _in_thread(act: Callable[[Action], Any], parts: Sequence[str] = ()) -> Act:
    """Run `act` in a thread, as it may wait for a lock or the disk, and answer with its values as `parts`."""

    async def acted(action: Action, _: Request) -> Json:
        values = await to_thread.run_sync(act, action)
        return dict(zip(parts, values if len(parts) > 1 else (values,), strict=True)) if parts else {}

    return acted


def _about(act: Callable[..., Any]) -> Callable[[Action], Any]:
    return lambda action: act(action.data, action.place)


def _with_settings(act: Callable[..., Any]) -> Callable[[Action], Any]:
    return lambda action: act(action.data, action.place, action.settings)


def turn_actions(chat: Chat) -> dict[str, Act]:
    begin = (
        chat.example,
        chat.regenerate,
        chat.resume,
        chat.answer_again,
        chat.edit_message,
        chat.rethink,
        chat.answer,
    )
    change = (chat.replay, chat.choose_branch, chat.delete, chat.restore, chat.keep_reasoning)
    return {
        **{f"turns/{each.__name__}": _in_thread(_with_settings(each), TURN) for each in begin},
        **{f"turns/{each.__name__}": _in_thread(_about(each), TURN) for each in change},
        "turns/attach": _in_thread(lambda action: chat.attach(action.place), TURN),
        "turns/new_chat": _in_thread(lambda action: chat.new_chat(action.place), TURN),
        "turns/ended": _in_thread(lambda action: chat.commit(action.place), ("turns", "composer")),
        "turns/more": _in_thread(_about(chat.more), ("more",)),
        "turns/stop": _in_thread(lambda action: chat.stop(action.place)),
        "turns/answer_now": _in_thread(lambda action: chat.answer_now(action.place)),
    }


def history_actions(panel: HistoryPanel) -> dict[str, Act]:

    async def refresh(action: Action, _: Request) -> Json:
        return {"history": await panel.refresh(action.data, action.place)}

    listed = (panel.rename, panel.pin, panel.save, panel.bring)
    turned = (panel.open, panel.remove, panel.restore, panel.forget)
    return {
        "history/refresh": refresh,
        **{f"history/{each.__name__}": _in_thread(_about(each), ("history",)) for each in listed},
        **{f"history/{each.__name__}": _in_thread(_about(each), LISTED) for each in turned},
    }


def composer_actions(chat: Chat) -> dict[str, Act]:
    """Actions on the message being written. Those with new images wait for their turn without holding a thread."""

    async def say(action: Action, request: Request) -> Json:
        try:
            answer = await turn(
                action, request, lambda: chat.say(action.composed, action.place, action.settings), sent=True
            )
        except TooManyRequests as error:
            refused = error
            answer = await to_thread.run_sync(lambda: chat.refuse(action.place, refused))
        return dict(zip(TURN, answer, strict=True))

    async def weigh(action: Action, request: Request) -> Json:
        """Only measuring the images waits for a turn: counting the rest may mean asking a server."""
        try:
            await turn(action, request, lambda: measure(action))
        except TooManyRequests as error:
            return {"meter": {**refused_meter(error), "of": size_of(action.composed)}}
        return {"meter": await to_thread.run_sync(chat.weigh, action.composed, action.place, action.settings)}

    async def look(action: Action, request: Request) -> Json:
        """Images that could not be checked now stay attached and are checked when they are sent."""
        try:
            return {"attached": await turn(action, request, lambda: chat.look(action.data, action.composed), sent=True)}
        except TooManyRequests:
            unseen = [UNSEEN for _ in action.composed.get("files", ())]
            return {"attached": {"attached": unseen, "number": action.data.get("number")}}

    def paths(action: Action) -> list[str]:
        files: list[str] = action.composed.get("files", [])
        return files[: chat.visitors.limits.pictures]

    def measure(action: Action) -> None:
        with suppress(BadInput):  # reported once everything is counted
            chat.uploads.measure(paths(action))

    async def turn(action: Action, request: Request, act: Callable[[], Any], *, sent: bool = False) -> Any:
        found = paths(action)
        count = chat.uploads.count_new(found, measured=not sent) if found else 0
        if not found or not (count or sent):
            return await to_thread.run_sync(act)
        return await chat.visitors.images.run(
            client_of(request.scope), count, act, disconnected=request.is_disconnected
        )

    return {"composer/say": say, "composer/weigh": weigh, "composer/look": look}


def model_actions(chat: Chat) -> dict[str, Act]:
    engine = chat.engine

    def poll(action: Action) -> tuple[Json, Json]:
        session = chat.visitors.find(action.place)
        # Stop is in the composer, also for a reply that waits for the model.
        writing = session is not None and session.busy
        ready = writing or info_of(engine.status()) is not None
        return model_value(engine), {} if ready else {"interactive": False}

    def retry(action: Action) -> tuple[Json, Json]:
        engine.retry()
        return poll(action)

    def ready(action: Action) -> tuple[Any, ...]:
        # Only now may it be known which model this is, and so its own settings and what fits.
        return *chat.commit(action.place), panel_value(engine), chat.prompt(action.settings)

    return {
        "model/poll": _in_thread(poll, ("model", "composer")),
        "model/retry": _in_thread(retry, ("model", "composer")),
        "model/ready": _in_thread(ready, ("turns", "composer", "parameters", "prompt")),
        "model/compose": _in_thread(lambda action: chat.prompt(action.settings), ("prompt",)),
    }


def owner_actions(models: ModelActions) -> dict[str, Act]:
    """Actions on the models of this machine; `models` refuses them to all but the owner."""
    acts = (models.list, models.download, models.pause, models.remove, models.switch, models.unload, models.idle)

    def done_by(act: Callable[[Json], Json]) -> Act:
        return _in_thread(lambda action: act(action.data), ("models",))

    return {f"models/{each.__name__}": done_by(each) for each in acts}


def live_route(visitors: Visitors) -> Route:
    """The stream of a reply, by its generation, from the first event that the page has not seen.

    Both are headers: an address would be logged, and a foreign page may not send headers of its own. A generation's id is 256
    random bits known only to its visitor's pages; once the reply has ended, the answer is 404, and its turn has everything.
    """

    async def live(request: Request) -> Response:
        asked, seen = request.headers.get("x-generation", ""), request.headers.get("last-event-id", "0")
        if not seen.isdecimal() or len(seen) > 9:
            return Response(status_code=400)
        found = await asyncio.to_thread(visitors.running_reply, asked)
        if found is None:
            return not_found()
        messages = _messages(*found, int(seen))
        return StreamingResponse(messages, media_type="text/event-stream", headers=STREAM_HEADERS)

    return Route(LIVE_PATH, live)


async def _messages(generation: Generation, before: Reply | None, seen: int) -> AsyncIterator[str]:
    async for view in watch(generation, before=before, seen=seen):
        yield f"data: {json.dumps(view.value(), ensure_ascii=False, separators=(',', ':'))}\n\n"


def model_route(engine: Engine) -> Route:
    """Where an idle page asks whether anything has changed: only a mark, so that hundreds can ask."""

    async def look(request: Request) -> Response:  # noqa: ARG001  # the answer is the same for everybody
        return PlainTextResponse(mark(engine.status()), headers={"Cache-Control": "no-store"})

    return Route(MODEL_PATH, look)
