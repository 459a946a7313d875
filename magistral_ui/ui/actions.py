"""What the page's script may ask for, one typed address for each action; what an action does is in chat.py and history_panel.py.

Gradio could carry these as events of its components. It would send every value of a component with each of them, find the
function by a number, and answer with whatever components the function was joined to; here a body says what is asked, an
answer what has changed, and neither is more than that.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from anyio import to_thread
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from magistral_ui.chat.json_values import Json, alert_value
from magistral_ui.engines.base import Ready
from magistral_ui.errors import BadInput, MagistralUIError, Message, TooManyRequests
from magistral_ui.i18n.texts import sentence_for_client
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.context_meter import UNSEEN, refused_meter, size_of
from magistral_ui.ui.history_panel import HistoryPanel
from magistral_ui.ui.panels import model_value
from magistral_ui.ui.sampling_panel import panel_value
from magistral_ui.web.client_address import ACTIONS_PATH, client_of
from magistral_ui.web.error_responses import sentence_response

log = logging.getLogger(__name__)


class Upload(BaseModel):
    """A file in the composer. What else Gradio holds of it is not read; None where it is not the caller's."""

    path: str


class Composed(BaseModel):
    """What is in the composer."""

    model_config = ConfigDict(strict=True)
    text: str = ""
    files: list[Upload | None] = []


class Action(BaseModel):
    """The body of every action. Whose it is and which conversation it is about stands in `place`, see sessions/visitors.py."""

    model_config = ConfigDict(strict=True, extra="forbid")
    place: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    """What the panel says, see sampling_panel.py."""
    data: dict[str, Any] = {}
    """What is peculiar to the action, such as the message that it is about."""
    message: Composed | None = None

    @property
    def composed(self) -> Json:
        """The message as `Chat` takes it."""
        if self.message is None:
            return {}
        return {"text": self.message.text, "files": [each.path for each in self.message.files if each is not None]}


Act = Callable[[Action, Request], Awaitable[Json]]
TURN, LISTED = ("place", "turns", "composer"), ("place", "turns", "composer", "history")
"""The parts of an answer: where the tab is, what is said there, the composer, and the list of conversations."""


def action_route(chat: Chat) -> Route:
    """Where the page's script asks for something to be done."""
    actions = {
        **turn_actions(chat),
        **history_actions(HistoryPanel(chat)),
        **composer_actions(chat),
        **model_actions(chat),
    }

    async def act(request: Request) -> Response:
        known = actions.get("{part}/{name}".format(**request.path_params))
        if known is None:
            return Response(status_code=404)
        try:
            action = Action.model_validate_json(await request.body())
        except ValidationError as error:
            log.info("an action is not as the page sends it: %d faults", error.error_count())
            return sentence_response(400, sentence_for_client(Message("request_forged")))
        try:
            answer = await known(action, request)
        except MagistralUIError as error:
            answer = {"alert": alert_value(error)}
        except Exception:
            log.exception("an action of the page failed")
            return sentence_response(500, sentence_for_client(Message("unexpected")))
        if "turns" in answer:  # a model on a server may have gone since, or come back
            answer["model"] = model_value(chat.engine)
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    return Route(f"{ACTIONS_PATH}{{part}}/{{name}}", act, methods=["POST"])


def _in_thread(act: Callable[[Action], Any], parts: Sequence[str] = ()) -> Act:
    """`act`, which may wait for a lock or the disk; its values become these parts of the answer."""

    async def acted(action: Action, _: Request) -> Json:
        values = await to_thread.run_sync(act, action)
        return dict(zip(parts, values if len(parts) > 1 else (values,), strict=True)) if parts else {}

    return acted


def _about(act: Callable[..., Any]) -> Callable[[Action], Any]:
    return lambda action: act(action.data, action.place)


def _with_settings(act: Callable[..., Any]) -> Callable[[Action], Any]:
    return lambda action: act(action.data, action.place, action.settings)


def turn_actions(chat: Chat) -> dict[str, Act]:
    """What is done with the conversation that is shown."""
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
    """What is done with the list of conversations."""

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
    """What comes with pictures: each waits for its turn without holding a thread; without new ones there is no turn."""

    async def say(action: Action, request: Request) -> Json:
        try:
            said = await turn(
                action, request, lambda: chat.say(action.composed, action.place, action.settings), sent=True
            )
        except TooManyRequests as error:
            refused = error
            said = await to_thread.run_sync(lambda: chat.refuse(action.place, refused))
        return dict(zip(TURN, said, strict=True))

    async def weigh(action: Action, request: Request) -> Json:
        """Only the pictures are looked at in turn: to count the rest, a server may be asked."""
        try:
            await turn(action, request, lambda: measure(action))
        except TooManyRequests as error:
            return {"meter": {**refused_meter(error), "of": size_of(action.composed)}}
        return {"meter": await to_thread.run_sync(chat.weigh, action.composed, action.place, action.settings)}

    async def look(action: Action, request: Request) -> Json:
        """What nobody had time to look at stays, and is looked at when it is sent."""
        try:
            return {"attached": await turn(action, request, lambda: chat.look(action.data, action.composed), sent=True)}
        except TooManyRequests:
            unseen = [UNSEEN for _ in action.composed.get("files", ())]
            return {"attached": {"attached": unseen, "number": action.data.get("number")}}

    def paths(action: Action) -> list[str]:
        files: list[str] = action.composed.get("files", [])
        return files[: chat.visitors.limits.pictures]

    def measure(action: Action) -> None:
        with suppress(BadInput):  # which is told when all is counted
            chat.uploads.measure(paths(action))

    async def turn(action: Action, request: Request, act: Callable[[], Any], *, sent: bool = False) -> Any:
        found = paths(action)
        count = chat.uploads.count_new(found, measured=not sent) if found else 0
        if not found or not (count or sent):
            return await to_thread.run_sync(act)
        return await chat.visitors.images.run(client_of(request.scope), count, act, gone=request.is_disconnected)

    return {"composer/say": say, "composer/weigh": weigh, "composer/look": look}


def model_actions(chat: Chat) -> dict[str, Act]:
    """What the page asks of the model while it is loading or away, and of the prompt that it would read."""
    engine = chat.engine

    def poll(_: Action) -> tuple[Json, Json]:
        return model_value(engine), {} if isinstance(engine.status(), Ready) else {"interactive": False}

    def retry(action: Action) -> tuple[Json, Json]:
        engine.retry()
        return poll(action)

    def ready(action: Action) -> tuple[Any, ...]:
        # Which model it is may have become known only now, and with it what suits it and what fits.
        return *chat.commit(action.place), panel_value(engine), chat.prompt(action.settings)

    return {
        "model/poll": _in_thread(poll, ("model", "composer")),
        "model/retry": _in_thread(retry, ("model", "composer")),
        "model/ready": _in_thread(ready, ("turns", "composer", "parameters", "prompt")),
        "model/compose": _in_thread(lambda action: chat.prompt(action.settings), ("prompt",)),
    }
