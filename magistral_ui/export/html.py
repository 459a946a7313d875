"""Exports conversations as one self-contained HTML page: no scripts, no requests, embedded images."""

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from typing import Literal

from magistral_ui.chat.conversation import ChatMessage, UserMessage
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Reply
from magistral_ui.errors import ImageRefused, TooManyRequests
from magistral_ui.export.answer_html import AnswerRenderer
from magistral_ui.export.document import Captions, Document, Texts, TimeBudget, cpu_seconds, shown_messages
from magistral_ui.export.mathml import BoundedFormulas

MAX_SIDE = 1600
"""Pixels of an image's longer side: enough to read a screenshot, and the file stays small. Images are re-encoded, so they lose
a camera's metadata, which tells where a photo was taken."""
MAX_IMAGE_CHARACTERS = 100_000_000
"""Characters of all images in one file: one image may be shown in very many messages."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML does not allow."""


class ImageTags:
    """The images of one file, each re-encoded once; only the name if the file gets too large or the time is up."""

    def __init__(self, words: Texts, budget: TimeBudget, room: int = MAX_IMAGE_CHARACTERS) -> None:
        self._captions, self._budget, self._room = Captions(words), budget, room
        self._made: dict[str, str] = {}

    def html(self, image: ImageFile, number: int) -> str:
        name = escape(self._captions.image_name(image, number))
        data = self._data(image)
        if len(data) > self._room or not data:
            return f'<span class="note">{name}</span>'
        self._room -= len(data)
        size = f'width="{image.width}" height="{image.height}"'
        return f'<img src="data:image/jpeg;base64,{data}" alt="{name}" title="{name}" {size}>'

    def _data(self, image: ImageFile) -> str:
        if image.digest not in self._made and not self._budget.is_over:
            with suppress(ImageRefused, TooManyRequests):
                self._made[image.digest] = base64.b64encode(image.thumbnail(MAX_SIDE)).decode("ascii")
        return self._made.get(image.digest, "")


def export_html(
    documents: Sequence[Document],
    words: Texts,
    language: str = "en",
    direction: Literal["ltr", "rtl"] = "ltr",
    clock: Callable[[], float] = cpu_seconds,
) -> str:
    """One page with each document's chosen branch; after the time budget, answers are plain text and images only names."""
    budget, captions = TimeBudget(clock), Captions(words)
    titles = [captions.title(document) for document in documents]
    title = titles[0] if len(titles) == 1 else words("export_many", count=len(titles))
    with BoundedFormulas() as formulas:
        renderers = _Renderers(captions, AnswerRenderer(words, budget, formulas), ImageTags(words, budget))
        body = "".join(_conversation(number, document, renderers) for number, document in enumerate(documents, 1))
    page = f"""<!doctype html>
<html lang="{escape(language)}" dir="{direction}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style()}</style>
</head>
<body>
{_contents(titles, words) if len(titles) > 1 else ""}<main>
{body}</main>
</body>
</html>
"""
    return CONTROLS.sub("\ufffd", page)


@cache
def style() -> str:
    """The style sheet for answers, which the page uses too, and the file's own."""
    package = resources.files("magistral_ui")
    sheets = (package / "ui" / "assets" / "answer.css", package / "export" / "page.css")
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def _contents(titles: Sequence[str], words: Texts) -> str:
    links = "".join(
        f'<li><a href="#c{number}" dir="auto">{escape(title)}</a></li>\n' for number, title in enumerate(titles, 1)
    )
    return f'<nav aria-label="{escape(words("export_contents"))}">\n<ol>\n{links}</ol>\n</nav>\n'


@dataclass(frozen=True, slots=True)
class _Renderers:
    """The renderers of the parts of one file."""

    captions: Captions
    answers: AnswerRenderer
    images: ImageTags


def _conversation(number: int, document: Document, renderers: _Renderers) -> str:
    captions = renderers.captions
    messages = shown_messages(document.conversation.path())
    turns = "".join(_turn(message, renderers) for message in messages)
    return f"""<section id="c{number}">
<header>
<h1 dir="auto">{escape(captions.title(document))}</h1>
<p class="about">{escape(captions.about(document))}</p>
</header>
{turns}</section>
"""


def _turn(message: ChatMessage, renderers: _Renderers) -> str:
    if isinstance(message, UserMessage):
        heading, content = renderers.captions.words("turn_you"), "".join(_said(message, renderers))
    else:
        heading, content = renderers.captions.words("turn_model"), "".join(_reply(message.reply, renderers))
    kind = "user" if isinstance(message, UserMessage) else "reply"
    return f'<article class="turn {kind}">\n<h2>{escape(heading)}</h2>\n{content}</article>\n'


def _said(message: UserMessage, renderers: _Renderers) -> Iterator[str]:
    if message.images:
        images = "".join(renderers.images.html(image, number) for number, image in enumerate(message.images, 1))
        yield f'<div class="pictures">{images}</div>\n'
    if message.text.strip():
        yield f'<div class="said" dir="auto">{escape(message.text)}</div>\n'


def _reply(reply: Reply, renderers: _Renderers) -> Iterator[str]:
    captions = renderers.captions
    if reply.reasoning.strip():
        summary = escape(captions.reasoning(reply))
        text = f'<div class="reasoning" dir="auto">{escape(reply.reasoning)}</div>'
        yield f"<details>\n<summary>{summary}</summary>\n{text}\n</details>\n"
    if reply.answer.strip():
        yield f'<div class="answer" dir="auto">\n{renderers.answers.html(reply.answer)}</div>\n'
    for note in captions.notes(reply):
        yield f'<p class="{"note failure" if reply.failure else "note"}">{escape(note)}</p>\n'
    if source := captions.source(reply):
        yield f'<footer dir="auto">{escape(source)}</footer>\n'
