"""What happens on the page when someone sends, stops or asks again, as plain functions; not where the events come from."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from magistral_ui.chat.pictures import Picture, read_picture
from magistral_ui.chat.prompt import PromptChoices
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, Ready
from magistral_ui.errors import EmptyMessage, MagistralUIError, PictureRefused, TooManyPictures
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.live import watch
from magistral_ui.ui.rendering import ASSETS, Json, Thumbnails, alert_value, examples, examples_value, page_value
from magistral_ui.ui.sampling_panel import params_from


class Chat:
    """What the page's events do, as plain functions: values in, values out."""

    def __init__(self, engine: Engine, visitors: Visitors) -> None:
        self.engine, self.visitors = engine, visitors
        self.thumbnails = Thumbnails()

    def attach(self, visitor: object) -> tuple[str, Json, Any]:
        """A browser opens the page: its id, what was said, and the composer as it has to be."""
        key, session = self.visitors.open(visitor)
        return key, self._value(session, alert=None), self.composer(session)

    def say(self, message: Json | None, visitor: object, *panel: Any) -> tuple[str, Json, Any]:
        """Send what is in the composer. A refusal leaves the composer as it is."""
        key, session = self.visitors.open(visitor)
        try:
            params, choices = params_from(self.engine.card, panel)
            said = message or {}
            pictures = read_files(said.get("files") or (), self.visitors.limits)
            session.say(str(said.get("text") or ""), self._seen(pictures), params, choices)
        except EmptyMessage:
            return key, self._value(session), gr.skip()
        except MagistralUIError as error:
            return key, self._value(session, alert=alert_value(error)), gr.skip()
        return key, self._value(session, alert=None), self.composer(session, value=None)

    def example(self, data: Json, visitor: object, *panel: Any) -> tuple[str, Json, Any]:
        """Send an example that was clicked."""
        shown = examples_value(self.engine.card)
        index = data.get("index")
        if not isinstance(index, int) or not 0 <= index < len(shown):
            return self.say(None, visitor, *panel)
        chosen = next(each for each in examples() if each["text"] == shown[index]["text"])
        files = [str(ASSETS / "examples" / chosen["picture"])] if "picture" in chosen else []
        return self.say({"text": chosen["text"], "files": files}, visitor, *panel)

    def regenerate(self, data: Json, visitor: object, *panel: Any) -> tuple[str, Json, Any]:
        """Write another reply in the place of the one that was clicked."""
        return self._change(visitor, lambda session: session.regenerate(_message(data), *self._panel(panel)))

    def resume(self, data: Json, visitor: object, *panel: Any) -> tuple[str, Json, Any]:
        """Go on with a reply that was cut."""
        return self._change(visitor, lambda session: session.continue_reply(_message(data), *self._panel(panel)))

    def answer_again(self, data: Json, visitor: object, *panel: Any) -> tuple[str, Json, Any]:
        """Write another answer from the same reasoning."""
        return self._change(visitor, lambda session: session.answer_again(_message(data), *self._panel(panel)))

    def edit_message(self, data: Json, visitor: object, *panel: Any) -> tuple[str, Json, Any]:
        """Say something else in the place of a message."""
        said = str(data.get("text") or "")
        return self._change(visitor, lambda session: session.edit(_message(data), said, *self._panel(panel)))

    def choose_branch(self, data: Json, visitor: object) -> tuple[str, Json, Any]:
        """Show another branch."""
        return self._change(visitor, lambda session: session.choose(_message(data)))

    async def view(self, visitor: object) -> AsyncIterator[Json]:
        """Watch the running reply, if there is one, until it ends."""
        session = self.visitors.find(visitor)
        running = session.running if session else None
        if running is None:
            return
        async for view in watch(running.generation, before=running.before):
            yield view.value()

    def commit(self, visitor: object) -> tuple[Json, Any]:
        """After a turn: the finished turns and the composer, ready for the next one."""
        session = self.visitors.find(visitor)
        return self._value(session), self.composer(session)

    def stop(self, visitor: object) -> None:
        """End this visitor's running reply."""
        if session := self.visitors.find(visitor):
            session.stop()

    def answer_now(self, visitor: object) -> None:
        """End the reasoning of this visitor's running reply."""
        if session := self.visitors.find(visitor):
            session.answer_now()

    def new_chat(self, visitor: object) -> tuple[Json, Any]:
        """Begin an empty conversation."""
        session = self.visitors.find(visitor)
        if session:
            session.new_chat()
        return self._value(session, alert=None), self.composer(session)

    def composer(self, session: Session | None, **changes: Any) -> Any:
        """The composer as it has to be: to send while nothing runs, to stop while something does."""
        running = session is not None and session.running is not None
        ready = isinstance(self.engine.status(), Ready)
        return gr.update(interactive=ready, submit_btn=not running, stop_btn=running, **changes)

    def _panel(self, panel: Sequence[Any]) -> tuple[SamplingParams, PromptChoices]:
        return params_from(self.engine.card, panel)

    def _change(self, visitor: object, change: Callable[[Session], object]) -> tuple[str, Json, Any]:
        key, session = self.visitors.open(visitor)
        try:
            change(session)
        except MagistralUIError as error:
            return key, self._value(session, alert=alert_value(error)), gr.skip()
        return key, self._value(session, alert=None), self.composer(session)

    def _value(self, session: Session | None, **more: Any) -> Json:
        return {**page_value(session, self.engine.card, self.thumbnails), **more}

    def _seen(self, pictures: Sequence[Picture]) -> Sequence[Picture]:
        if pictures and not self.engine.card.vision:
            raise PictureRefused("picture_not_supported", name=pictures[0].name)
        return pictures


def _message(data: Json) -> int:
    """Which message an event is about; an id that none has where it does not say."""
    message = data.get("message")
    return message if isinstance(message, int) else -1


def read_files(paths: Sequence[str], limits: Limits) -> list[Picture]:
    """The pictures in uploaded files; BadInput for a file that is none, or for too many."""
    if len(paths) > limits.pictures:
        raise TooManyPictures(count=len(paths), limit=limits.pictures)
    return [
        read_picture(
            Path(path).read_bytes(),
            Path(path).name,
            max_bytes=limits.picture_bytes,
            max_pixels=limits.picture_pixels,
        )
        for path in paths
    ]
