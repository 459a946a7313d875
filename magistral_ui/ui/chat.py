"""What happens on the page when someone sends, stops or asks again, as plain functions; it does not know how they are called."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.json_values import Json, alert_value
from magistral_ui.chat.prompt import PromptChoices
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, Ready
from magistral_ui.errors import EmptyMessage, MagistralUIError, NotReady
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.upload_cache import UploadCache, check_seen
from magistral_ui.sessions.visitors import Place, Visitors
from magistral_ui.ui.context_meter import attached_value, context_use, empty_meter, meter_value, refused_meter, size_of
from magistral_ui.ui.rendering import ASSETS, Thumbnails, examples, examples_value, more_value, page_value
from magistral_ui.ui.sampling_panel import params_from, prompt_value, read_settings


class Chat:
    """What the page's events do, as plain functions: values in, values out."""

    def __init__(self, engine: Engine, visitors: Visitors) -> None:
        self.engine, self.visitors = engine, visitors
        self.thumbnails, self.uploads = Thumbnails(), UploadCache(visitors.limits)
        self.server = secrets.token_hex(4)
        """Which run of the app answers: the moments that its answers tell can be compared among themselves only."""

    def attach(self, visitor: object) -> tuple[Place, Json, Json]:
        """A browser opens the page: its place, what was said, and the composer as it has to be."""
        key, session = self.visitors.open(visitor)
        return key, self.value(session, visitor, alert=None), self.composer(session)

    def say(self, message: Json | None, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Send what is in the composer. A refusal leaves the composer as it is."""
        key, session = self.visitors.open(visitor)
        try:
            settings = read_settings(self.engine.card, panel)
            text, images = self._composed(message, settings.image_side)
            session.say(text, images, settings.params, settings.choices)
        except EmptyMessage:
            return key, self.value(session, visitor), {}
        except MagistralUIError as error:
            return key, self.value(session, visitor, alert=alert_value(error)), self.composer(session)
        return key, self.value(session, visitor, alert=None), self.composer(session, value={"text": "", "files": []})

    def refuse(self, visitor: object, error: MagistralUIError) -> tuple[Place, Json, Json]:
        """Leave all as it is, and say why."""
        key, session = self.visitors.open(visitor)
        return key, self.value(session, visitor, alert=alert_value(error)), self.composer(session)

    def example(self, data: Json, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Send an example that was clicked."""
        shown = examples_value(self.engine.card)
        index = data.get("index")
        if not isinstance(index, int) or not 0 <= index < len(shown):
            return self.say(None, visitor, *panel)
        chosen = next(each for each in examples() if each["text"] == shown[index]["text"])
        files = [str(ASSETS / "examples" / chosen["picture"])] if "picture" in chosen else []
        return self.say({"text": chosen["text"], "files": files}, visitor, *panel)

    def regenerate(self, data: Json, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Write another reply in the place of the one that was clicked."""
        return self._change(visitor, lambda session: session.regenerate(_message(data), *self._panel(panel)))

    def resume(self, data: Json, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Go on with a reply that was cut."""
        return self._change(visitor, lambda session: session.continue_reply(_message(data), *self._panel(panel)))

    def answer_again(self, data: Json, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Write another answer from the same reasoning."""
        return self._change(visitor, lambda session: session.answer_again(_message(data), *self._panel(panel)))

    def edit_message(self, data: Json, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Say something else in the place of a message."""
        said = str(data.get("text") or "")
        return self._change(visitor, lambda session: session.edit(_message(data), said, *self._panel(panel)))

    def rethink(self, data: Json, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Think on, or answer, from reasoning that was edited."""
        said, closed = str(data.get("text") or ""), bool(data.get("closed"))
        return self._change(visitor, lambda session: session.rethink(_message(data), said, closed, *self._panel(panel)))

    def replay(self, data: Json, visitor: object) -> tuple[Place, Json, Json]:
        """Write a reply again with what it was written with; the panel has no say in it."""
        return self._change(visitor, lambda session: session.replay(_message(data)))

    def answer(self, data: Json, visitor: object, *panel: Any) -> tuple[Place, Json, Json]:
        """Answer a message that has no reply."""
        return self._change(visitor, lambda session: session.answer(_message(data), *self._panel(panel)))

    def delete(self, data: Json, visitor: object) -> tuple[Place, Json, Json]:
        """Take out a message and what follows it; the page offers to undo that."""
        counts: list[int] = []
        key, value, box = self._change(visitor, lambda session: counts.append(session.delete(_message(data))))
        return key, {**value, "deleted": {"message": _message(data), "count": counts[0]} if counts else None}, box

    def restore(self, data: Json, visitor: object) -> tuple[Place, Json, Json]:
        """Bring back what was deleted last."""
        return self._change(visitor, lambda session: session.restore(_message(data)))

    def keep_reasoning(self, data: Json, visitor: object) -> tuple[Place, Json, Json]:
        """Leave the reasoning of one reply in or out of the context, or let it follow the general choice."""
        keep = data.get("keep")
        kept = keep if isinstance(keep, bool) else None
        return self._change(visitor, lambda session: session.keep_reasoning(_message(data), kept))

    def choose_branch(self, data: Json, visitor: object) -> tuple[Place, Json, Json]:
        """Show another branch."""
        return self._change(visitor, lambda session: session.choose(_message(data)))

    def more(self, data: Json, visitor: object) -> Json | None:
        """What the page was not sent with the conversation, and needs now."""
        session, asked, reasoning = self.visitors.find(visitor), data.get("messages"), data.get("reasoning")
        if session is None:
            return None
        messages = [each for each in asked if isinstance(each, int)] if isinstance(asked, list) else []
        wanted = reasoning if isinstance(reasoning, int) else None
        return {**more_value(session, self.thumbnails, messages, wanted), "number": data.get("number")}

    def commit(self, visitor: object) -> tuple[Json, Json]:
        """After a turn: the finished turns and the composer, ready for the next one.

        A tab that has turned to another conversation meanwhile does not turn back for it. A tab that has none yet cannot
        send: what it sent would be a stranger's.
        """
        session = self.visitors.find(visitor)
        known = isinstance(visitor, dict) and visitor.get("visitor")
        return self.value(session, visitor, follows=True), self.composer(session) if known else {}

    def weigh(self, message: Json | None, visitor: object, *panel: Any) -> Json:
        """What the message that is being written would cost, and whether it fits; nothing is sent."""
        return {**self._weighed(message, visitor, panel), "of": size_of(message)}

    def _weighed(self, message: Json | None, visitor: object, panel: Sequence[Any]) -> Json:
        session = self.visitors.find(visitor)
        if session is None:
            return empty_meter()
        try:
            settings = read_settings(self.engine.card, panel)
            text, images = self._composed(message, settings.image_side, self.uploads.measure)
            return meter_value(
                self.engine, context_use(*session.measure(text, images, settings.choices)), images, settings
            )
        except NotReady:
            return empty_meter()
        except MagistralUIError as error:
            return refused_meter(error)

    def look(self, data: Json, message: Json | None) -> Json:
        """Whether the files that are attached can be sent, told as soon as they are there, before anybody sends them."""
        paths = [str(path) for path in (message or {}).get("files") or ()][: self.visitors.limits.pictures]
        found = attached_value(paths, self.uploads, self.engine.card, self.thumbnails)
        return {"attached": found, "number": data.get("number")}

    def prompt(self, *panel: Any) -> Json:
        """The system prompt as the model would read it with these settings."""
        try:
            return prompt_value(self.engine.card, panel)
        except MagistralUIError as error:
            return {**prompt_value(self.engine.card, []), "failure": alert_value(error)}

    def stop(self, visitor: object) -> None:
        """End this visitor's running reply."""
        if session := self.visitors.find(visitor):
            session.stop()

    def answer_now(self, visitor: object) -> None:
        """End the reasoning of this visitor's running reply."""
        if session := self.visitors.find(visitor):
            session.answer_now()

    def new_chat(self, visitor: object) -> tuple[Place, Json, Json]:
        """Begin an empty conversation; what runs in the one before goes on."""
        key, session = self.visitors.begin(visitor)
        return key, self.value(session, visitor, alert=None), self.composer(session)

    def composer(self, session: Session | None, **changes: Any) -> Json:
        """The composer's properties as they have to be: to send while nothing runs, to stop while something does."""
        running = session is not None and session.running is not None
        ready = isinstance(self.engine.status(), Ready)
        return {"interactive": ready, "submit_btn": not running, "stop_btn": running, **changes}

    def _panel(self, panel: Sequence[Any]) -> tuple[SamplingParams, PromptChoices]:
        return params_from(self.engine.card, panel)

    def _change(self, visitor: object, change: Callable[[Session], object]) -> tuple[Place, Json, Json]:
        key, session = self.visitors.open(visitor)
        try:
            change(session)
        except MagistralUIError as error:
            return key, self.value(session, visitor, alert=alert_value(error)), self.composer(session)
        return key, self.value(session, visitor, alert=None), self.composer(session)

    def value(self, session: Session | None, visitor: object, **more: Any) -> Json:
        """What the page shows of `session`, and which question of the `visitor`'s it answers: answers may overtake each other."""
        asked = visitor.get("asked") if isinstance(visitor, dict) else None
        answers = {"server": self.server, "asked": asked if isinstance(asked, int) else 0}
        return {**page_value(session, self.engine.card, self.thumbnails), **answers, **more}

    def _composed(
        self, message: Json | None, image_side: int | None, read: Callable[..., list[ImageFile]] | None = None
    ) -> tuple[str, list[ImageFile]]:
        """What is in the composer, as the model would get it."""
        said = message or {}
        images: list[ImageFile] = []
        if said.get("files"):
            images = (read or self.uploads.read)(said["files"], image_side)
            check_seen(self.engine.card, images)
        return str(said.get("text") or ""), images


def _message(data: Json) -> int:
    """Which message an event is about; an id that none has where it does not say."""
    message = data.get("message")
    return message if isinstance(message, int) else -1
