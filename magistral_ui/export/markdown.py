"""Writes conversations as Markdown that reads well plain and rendered; what was said stays in its place, whatever it is."""

import time
from collections.abc import Callable, Iterator, Sequence
from html import escape

from magistral_ui.chat.conversation import ChatMessage, Reply, UserMessage
from magistral_ui.export import captions
from magistral_ui.export.document import Document, Texts, TimeBudget
from magistral_ui.export.markdown_escape import contained, inline, quoted


def export_markdown(documents: Sequence[Document], words: Texts, clock: Callable[[], float] = time.thread_time) -> str:
    """The chosen branch of each of `documents`, in the reader's `words`; a picture is named, not shown.

    What is left when the time of `clock` is over is shown as text.
    """
    patience = TimeBudget(clock)
    return "\n---\n\n".join("\n\n".join(_conversation(document, words, patience)) + "\n" for document in documents)


def _conversation(document: Document, words: Texts, patience: TimeBudget) -> Iterator[str]:
    yield f"# {inline(captions.title(document, words))}"
    yield f"*{inline(captions.about(document, words))}*"
    for message in captions.shown(document.conversation.path()):
        yield from _turn(message, words, patience)


def _turn(message: ChatMessage, words: Texts, patience: TimeBudget) -> Iterator[str]:
    if not isinstance(message, UserMessage):
        yield f"## {inline(words('turn_model'))}"
        yield from _reply(message.reply, words, patience)
        return
    yield f"## {inline(words('turn_you'))}"
    for number, image in enumerate(message.images, 1):
        yield f"*{inline(captions.image_name(image, number, words))}*"
    if message.text.strip():
        yield contained(message.text, keep_lines=True, plain=patience.is_over)


def _reply(reply: Reply, words: Texts, patience: TimeBudget) -> Iterator[str]:
    if reply.reasoning.strip():
        yield f"<details>\n<summary>{escape(captions.thought(reply, words))}</summary>"
        yield quoted(contained(reply.reasoning, keep_lines=True, plain=patience.is_over))
        yield "</details>"
    if reply.answer.strip():
        yield contained(reply.answer, plain=patience.is_over)
    for note in captions.notes(reply, words):
        yield f"*{inline(note)}*"
    if source := captions.source(reply, words):
        yield f"*{inline(source)}*"
