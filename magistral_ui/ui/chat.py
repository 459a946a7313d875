"""What the page does when someone sends, stops or regenerates, as plain functions; it does not know how they are called."""

import secrets
from collections.abc import Callable
from typing import Any, TypeGuard

from magistral_ui.chat.events import Json, alert_value
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import PromptChoices
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.client import CLIENT
from magistral_ui.engines.base import Engine, info_of
from magistral_ui.errors import EmptyMessage, MagistralUIError, NotReady
from magistral_ui.models.cards import check_seen
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.upload_cache import UploadCache
from magistral_ui.sessions.visitors import TabState, Visitors
from magistral_ui.ui.asset_files import ASSETS
from magistral_ui.ui.context_meter import attached_value, context_use, empty_meter, meter_value, refused_meter, size_of
from magistral_ui.ui.rendering import Thumbnails, examples, examples_value, more_value, page_value
from magistral_ui.ui.sampling_panel import prompt_value, read_settings

PageUpdate = tuple[TabState, Json, Json]
"""Where the tab is, what its conversation shows, and the composer's properties."""


class Chat:
    """What the page's actions do, as plain functions: values in, values out.

    Nothing of a tab is kept here. It names its place with every action, so that it can be served by a server that has restarted
    since, and several tabs of a visitor never disturb each other.
    """

    def __init__(self, engine: Engine, visitors: Visitors) -> None:
        self.engine, self.visitors = engine, visitors
        self.thumbnails, self.uploads = Thumbnails(), UploadCache(visitors.limits)
        self.server = secrets.token_hex(4)
        """This run of the app: times in its answers can only be compared with each other."""

    def attach(self, place: object) -> PageUpdate:
        """A tab opens the page: where it is, what was said there, and how the composer has to be."""
        return self._turn(*self.visitors.open(place), place)

    def say(self, message: Json | None, place: object, settings: object = None) -> PageUpdate:
        """Send what is in the composer. A refusal leaves the composer as it is."""
        tab, session = self.visitors.open(place)
        try:
            chosen = read_settings(self.engine.card, settings)
            text, images = self._composed(message, chosen.image_side)
            session.say(text, images, chosen.params, chosen.choices)
        except EmptyMessage:
            return tab, self.value(session, place), {}
        except MagistralUIError as error:
            return self._turn(tab, session, place, error)
        tab, value, composer = self._turn(tab, session, place)
        return tab, value, {**composer, "value": {"text": "", "files": []}}

    def refuse(self, place: object, error: MagistralUIError) -> PageUpdate:
        return self._turn(*self.visitors.open(place), place, error)

    def example(self, data: Json, place: object, settings: object = None) -> PageUpdate:
        shown = examples_value(self.engine.card)
        index = data.get("index")
        if not is_whole(index) or not 0 <= index < len(shown):
            return self.say(None, place, settings)
        chosen = next(each for each in examples() if each["text"] == shown[index]["text"])
        files = [str(ASSETS / "examples" / chosen["picture"])] if "picture" in chosen else []
        return self.say({"text": chosen["text"], "files": files}, place, settings)

    def regenerate(self, data: Json, place: object, settings: object = None) -> PageUpdate:
        return self._change(place, lambda session: session.regenerate(_message(data), *self._chosen(settings)))

    def resume(self, data: Json, place: object, settings: object = None) -> PageUpdate:
        return self._change(place, lambda session: session.resume(_message(data), *self._chosen(settings)))

    def answer_again(self, data: Json, place: object, settings: object = None) -> PageUpdate:
        return self._change(place, lambda session: session.answer_again(_message(data), *self._chosen(settings)))

    def edit_message(self, data: Json, place: object, settings: object = None) -> PageUpdate:
        text = str(data.get("text") or "")
        return self._change(place, lambda session: session.edit(_message(data), text, *self._chosen(settings)))

    def rethink(self, data: Json, place: object, settings: object = None) -> PageUpdate:
        """Continue thinking, or answer, from edited reasoning."""
        text, closed = str(data.get("text") or ""), bool(data.get("closed"))
        return self._change(
            place, lambda session: session.rethink(_message(data), text, closed, *self._chosen(settings))
        )

    def replay(self, data: Json, place: object) -> PageUpdate:
        """Reproduce a reply with the settings that it was written with, whatever the panel says."""
        return self._change(place, lambda session: session.replay(_message(data)))

    def answer(self, data: Json, place: object, settings: object = None) -> PageUpdate:
        return self._change(place, lambda session: session.answer(_message(data), *self._chosen(settings)))

    def delete(self, data: Json, place: object) -> PageUpdate:
        """Delete a message and what follows it; the page offers to undo that."""
        counts: list[int] = []
        tab, value, composer = self._change(place, lambda session: counts.append(session.delete(_message(data))))
        return tab, {**value, "deleted": {"message": _message(data), "count": counts[0]} if counts else None}, composer

    def restore(self, data: Json, place: object) -> PageUpdate:
        return self._change(place, lambda session: session.restore(_message(data)))

    def keep_reasoning(self, data: Json, place: object) -> PageUpdate:
        """Keep the reasoning of one reply in the context or leave it out, or follow the general choice."""
        keep = data.get("keep")
        kept = keep if isinstance(keep, bool) else None
        return self._change(place, lambda session: session.keep_reasoning(_message(data), kept))

    def choose_branch(self, data: Json, place: object) -> PageUpdate:
        return self._change(place, lambda session: session.choose(_message(data)))

    def more(self, data: Json, place: object) -> Json | None:
        """Parts of the conversation that the page was not sent at first and needs now."""
        session, asked, reasoning = self.visitors.find(place), data.get("messages"), data.get("reasoning")
        if session is None:
            return None
        messages = [each for each in asked if is_whole(each)] if isinstance(asked, list) else []
        wanted = reasoning if is_whole(reasoning) else None
        return {**more_value(session, self.thumbnails, messages, wanted), "number": data.get("number")}

    def commit(self, place: object) -> tuple[Json, Json]:
        """After a reply: the finished turns and the composer, ready for the next message.

        A tab that shows another conversation by now stays there. A tab without a place cannot send yet: nobody could find
        again what it sent. With names, a place is only a conversation.
        """
        if session := self.visitors.find(place):
            session.save()  # so that the list and a search know of it at once
        owner = "conversation" if CLIENT.get().login else "visitor"
        known = isinstance(place, dict) and place.get(owner)
        return self.value(session, place, follows=True), self.composer(session) if known else {}

    def weigh(self, message: Json | None, place: object, settings: object = None) -> Json:
        """How many tokens the message being written would take, and whether it fits; nothing is sent."""
        return {**self._weighed(message, place, settings), "of": size_of(message)}

    def _weighed(self, message: Json | None, place: object, settings: object) -> Json:
        session = self.visitors.find(place)
        if session is None:
            return empty_meter()
        try:
            chosen = read_settings(self.engine.card, settings)
            text, images = self._composed(message, chosen.image_side, self.uploads.measure)
            budget = chosen.params.reasoning_budget
            use = context_use(*session.measure(text, images, chosen.choices, budget))
            return meter_value(self.engine, use, images, chosen)
        except NotReady:
            return empty_meter()
        except MagistralUIError as error:
            return refused_meter(error)

    def look(self, data: Json, message: Json | None) -> Json:
        """Whether the attached files can be sent, as soon as they are uploaded."""
        paths = [str(path) for path in (message or {}).get("files") or ()][: self.visitors.limits.pictures]
        found = attached_value(paths, self.uploads, self.engine.card, self.thumbnails)
        return {"attached": found, "number": data.get("number")}

    def prompt(self, settings: object = None) -> Json:
        try:
            return prompt_value(self.engine.card, settings)
        except MagistralUIError as error:
            return {**prompt_value(self.engine.card), "failure": alert_value(error)}

    def stop(self, place: object) -> None:
        if session := self.visitors.find(place):
            session.stop()

    def answer_now(self, place: object) -> None:
        if session := self.visitors.find(place):
            session.answer_now()

    def new_chat(self, place: object) -> PageUpdate:
        """Begin an empty conversation; a reply in the previous one is still written."""
        return self._turn(*self.visitors.begin(place), place)

    def composer(self, session: Session | None) -> Json:
        """The composer's properties: it sends while nothing is being written, and stops a reply while one is."""
        running = session is not None and session.running is not None
        ready = info_of(self.engine.status()) is not None
        return {"interactive": ready or running, "submit_btn": not running, "stop_btn": running}

    def _chosen(self, settings: object) -> tuple[SamplingParams, PromptChoices]:
        chosen = read_settings(self.engine.card, settings)
        return chosen.params, chosen.choices

    def _change(self, place: object, change: Callable[[Session], object]) -> PageUpdate:
        tab, session = self.visitors.open(place)
        try:
            change(session)
        except MagistralUIError as error:
            return self._turn(tab, session, place, error)
        return self._turn(tab, session, place)

    def _turn(
        self, tab: TabState, session: Session, place: object, refused: MagistralUIError | None = None
    ) -> PageUpdate:
        alert = alert_value(refused) if refused else None
        return tab, self.value(session, place, alert=alert), self.composer(session)

    def value(self, session: Session | None, place: object, **more: Any) -> Json:
        """What the page shows of `session`, and which request of the tab this answers: answers may overtake each other."""
        asked = place.get("asked") if isinstance(place, dict) else None
        answers = {"server": self.server, "asked": asked if is_whole(asked) else 0}
        return {**page_value(session, self.engine.card, self.thumbnails), **answers, **more}

    def _composed(
        self, message: Json | None, image_side: int | None, read: Callable[..., list[ImageFile]] | None = None
    ) -> tuple[str, list[ImageFile]]:
        sent = message or {}
        images: list[ImageFile] = []
        if sent.get("files"):
            images = (read or self.uploads.read)(sent["files"], image_side)
            check_seen(self.engine.card, images)
        return str(sent.get("text") or ""), images


def _message(data: Json) -> int:
    """The id of the message that an action is about; an unused one if it names none."""
    message = data.get("message")
    return message if is_whole(message) else -1


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value from JSON is an integer; `true`, which Python counts as 1, is none."""
    return isinstance(value, int) and not isinstance(value, bool)
