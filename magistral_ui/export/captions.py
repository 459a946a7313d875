"""What an export says about conversations and messages besides their text, in the reader's language; not its layout."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from magistral_ui.chat.conversation import ChatMessage, Reply, UserMessage
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.errors import Value
from magistral_ui.export.document import Document, Texts, moment

ALWAYS_SHOWN = ("temperature", "top_p", "seed")
"""Parameters that are shown even at their default."""


def title(document: Document, words: Texts) -> str:
    """The document's title on one line; a general one where it has none."""
    return " ".join(document.title.split()) or words("export_untitled")


def about(document: Document, words: Texts) -> str:
    when = document.updated or document.created
    made = words("export_made", app=words("page_title"))
    return " · ".join([moment(when), made] if when else [made])


def shown(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    """The messages of a branch that are not empty."""
    for message in messages:
        if not isinstance(message, UserMessage) or message.text.strip() or message.images:
            yield message


def thought(reply: Reply, words: Texts) -> str:
    """How long the model thought, and in how many tokens."""
    usage = reply.usage
    if not usage.reasoning_tokens:
        return words("export_reasoning")
    key = "turn_thought" if reply.reasoning_closed else "turn_thought_unfinished"
    time = words(key, seconds=seconds(usage.reasoning_seconds))
    return f"{time} · {words('turn_tokens', count=usage.reasoning_tokens)}"


def seconds(value: float) -> str:
    """One decimal below a hundred, none above."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def notes(reply: Reply, words: Texts) -> list[str]:
    """A reply's notices, why it was cut short, and that there is no answer."""
    found = [words(f"notice_{key}") for key in reply.notices if _is_known(f"notice_{key}", words)]
    # A notice with a gap left unfilled: its value was shown at the time, and is not kept.
    found = [note for note in found if "{" not in note]
    if reply.failure:
        key = f"error_{reply.failure}"
        found.append(words(key if _is_known(key, words) else "error_unexpected", **dict(reply.failure_values)))
    elif reply.finish_reason == "length":
        found.append(words("export_ended_length"))
    elif reply.finish_reason == "cancelled":
        found.append(words("ended_cancelled"))
    if not reply.failure and reply.finish_reason != "cancelled" and not reply.answer.strip():
        found.append(words("turn_no_answer" if reply.reasoning else "turn_empty"))
    return found


def source(reply: Reply, words: Texts) -> str:
    """On one line: the model, how it ran, its tokens, and the parameters."""
    known = reply.provenance
    ran = [known.revision[:12], known.precision] if known else []
    count = reply.usage.completion_tokens
    parts = [reply.model, *ran, words("turn_tokens", count=count) if count else ""]
    return " · ".join(part for part in [*parts, *_parameters(reply, words)] if part)


def image_name(image: ImageFile, number: int, words: Texts) -> str:
    return words("turn_picture", number=number, name=image.name, width=image.width, height=image.height)


def _parameters(reply: Reply, words: Texts) -> Iterator[str]:
    values: dict[str, Value | None] = asdict(reply.params) if reply.params else {}
    for name, value in values.items():
        if value is not None and (name in ALWAYS_SHOWN or value != PARAMETERS[name].default):
            yield f"{words(f'parameter_{name}')} {value}"


def _is_known(key: str, words: Texts) -> bool:
    try:
        words(key)
    except KeyError:
        return False
    return True
