"""How full the context would be with the next message, as the browser draws it; it does not count tokens itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from magistral_ui.chat.events import Json, alert_value
from magistral_ui.chat.images import BROWSER_TYPES, ImageFile
from magistral_ui.chat.prompt import AssistantTurn, Prompt, UserTurn
from magistral_ui.engines.base import Engine, Measure, info_of
from magistral_ui.errors import ImageRefused, MagistralUIError, TooManyRequests
from magistral_ui.models.cards import ModelCard, check_seen
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.upload_cache import UploadCache
from magistral_ui.ui.rendering import Thumbnails, utf16_length
from magistral_ui.ui.sampling_panel import IMAGE_SIDES, VisitorSettings

LOW_ROOM_FRACTION = 8
"""Room for the reply is low if it is less than this fraction of the context, and less than the visitor's max tokens."""


UNSEEN: Json = {"failure": None, "thumbnail": None}


@dataclass(frozen=True, slots=True)
class ContextUse:
    """Tokens by what they are for; all but `left_out` and `text` add up to `total`."""

    system: int = 0
    conversation: int = 0
    """Earlier messages and answers, less the following two."""
    reasoning: int = 0
    """Earlier reasoning that stays in the context."""
    pictures: int = 0
    message: int = 0
    """The message being written with its pictures; 0 if there is none."""
    message_pictures: tuple[int, ...] = ()
    """Of the message, each picture."""
    left_out: int = 0
    estimated: bool = False
    """Whether a part was estimated from lengths, for want of the model's tokenizer."""

    @property
    def total(self) -> int:
        return self.system + self.conversation + self.reasoning + self.pictures + self.message


def context_use(measure: Measure, prompt: Prompt, draft: int | None) -> ContextUse:
    """What the tokens of `prompt`, measured by an engine, go to; `draft` is the id of the message being written."""
    replies = [turn for turn in prompt.turns if isinstance(turn, AssistantTurn)]
    kept = sum(measure.reasoning.get(_id(turn), 0) for turn in replies if turn.reasoning is not None)
    left_out = sum(measure.reasoning.get(_id(turn), 0) for turn in replies if turn.reasoning is None)
    written = [turn for turn in prompt.turns if isinstance(turn, UserTurn) and turn.message == draft]
    seen = [p for turn in prompt.turns if isinstance(turn, UserTurn) and turn.message != draft for p in turn.images]
    images = sum(measure.images.get(image.digest, 0) for image in seen)
    message = 0
    message_pictures: tuple[int, ...] = ()
    total = measure.total
    for turn in written:
        spent = measure.per_message.get(_id(turn), 0)
        if turn.text.strip() or turn.images:
            message = spent
            message_pictures = tuple(measure.images.get(image.digest, 0) for image in turn.images)
        else:
            total -= spent  # an empty message is none
    conversation = total - measure.system - kept - images - message
    return ContextUse(
        measure.system, conversation, kept, images, message, message_pictures, left_out, measure.estimated
    )


def _id(turn: UserTurn | AssistantTurn) -> int:
    return -1 if turn.message is None else turn.message


def empty_meter() -> Json:
    return {"limit": None, "failure": None}


def first_meter(limits: Limits) -> Json:
    return {"most": {"pictures": limits.pictures, "bytes": limits.picture_bytes}}


def size_of(message: Json | None) -> tuple[int, int]:
    """The length of the message and the number of its images, by which the browser knows which message a value is about."""
    sent = message or {}
    return utf16_length(str(sent.get("text") or "")), len(sent.get("files") or ())


def meter_value(engine: Engine, use: ContextUse, images: Sequence[ImageFile], settings: VisitorSettings) -> Json:
    """Tokens used and left, and remedies where too few are left; `images` are those of the message.

    `fit` is `fits`, `tight`, `too_long` if the message does not fit, or `full` if no message would.
    """
    info = info_of(engine.status())
    if info is None:
        return empty_meter()
    limit = info.context_length
    room = limit - use.total
    fit = "fits"
    if room < 1:
        fit = "too_long" if use.message else "full"
    elif room < min(settings.params.max_tokens, limit // LOW_ROOM_FRACTION):
        fit = "tight"
    return {
        "limit": limit,
        "total": use.total,
        "room": max(0, room),
        "use": asdict(use),
        "fit": fit,
        "remedies": remedies(use, images, settings, engine.card) if fit != "fits" else [],
        "failure": None,
    }


def remedies(use: ContextUse, images: Sequence[ImageFile], settings: VisitorSettings, card: ModelCard) -> list[Json]:
    """What one click can do for more room, with the number of tokens that it frees if that is known.

    Leaving out reasoning comes last if the model's makers advise against it, and says so.
    """
    found: list[Json] = []
    without: list[Json] = []
    if use.reasoning and settings.choices.keep_reasoning:
        without.append({"key": "leave_reasoning_out", "count": use.reasoning, "advised_against": card.keeps_reasoning})
    if not card.keeps_reasoning:
        found += without
    longest = max((max(each.width, each.height) for each in images), default=0)
    chosen = settings.image_side
    smaller = (side for side in IMAGE_SIDES if side < longest and (chosen is None or side < chosen))
    if (side := next(smaller, None)) is not None:
        found.append({"key": "smaller_pictures", "side": side})
    if use.conversation or use.reasoning or use.pictures:
        found.append({"key": "new_chat"})
    return found + without if card.keeps_reasoning else found


def refused_meter(error: MagistralUIError) -> Json:
    return {"limit": None, "failure": alert_value(error)}


def attached_value(paths: Sequence[str], uploads: UploadCache, card: ModelCard, thumbnails: Thumbnails) -> list[Json]:
    """For each attached file, why it cannot be sent, or a thumbnail where browsers cannot show the file itself."""
    found: list[Json] = []
    for path in paths:
        try:
            image = uploads.read([path])[0]
            check_seen(card, [image])
            shown = None if image.media_type in BROWSER_TYPES else thumbnails.value(image)["src"]
            found.append({"failure": None, "thumbnail": shown})
        except ImageRefused as error:
            found.append({"failure": alert_value(error), "thumbnail": None})
        except TooManyRequests:
            found.append(UNSEEN)  # it stays attached; sending it will report what is wrong
    return found
