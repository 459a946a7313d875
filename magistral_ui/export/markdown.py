"""Exports conversations as Markdown, to be rendered or read as it is; no text can affect what follows its turn."""

import re
from collections.abc import Callable, Iterator, Sequence
from html import escape

from markdown_it import MarkdownIt

from magistral_ui.chat.conversation import ChatMessage, UserMessage
from magistral_ui.chat.reply import Reply
from magistral_ui.export.bounds import bounds, is_readable
from magistral_ui.export.document import Captions, Document, Texts, TimeBudget, cpu_seconds, shown_messages
from magistral_ui.export.gfm import emphasis

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
PROSE = re.compile(
    r"(?P<code>(?<!`)(`+)(?!`)[^\n]*?(?<!`)\2(?!`))"
    # A formula cannot contain the beginning of another, so nothing is scanned twice, however many are left open.
    r"|\\\((?P<round>(?:[^$\\]|\\[^$(])+?)\\\)|\\\[(?P<square>(?:[^$\\]|\\[^$\[])+?)\\\]"
    r"|(?P<dollars>\$\$[^$]+\$\$|\$(?=\S)[^\n$]*(?<=\S)\$(?!\d))"
    r"|(?P<escaped>\\.)|(?P<tag><(?=[A-Za-z/!?]))|(?P<picture>!\[)",
    re.DOTALL,
)
SPECIAL = re.compile(r"([\\`*_\[\]<>&#|~$!])")
BEHIND = "behind"


def contained(text: str, keep_lines: bool = False, plain: bool = False) -> str:
    """`text` as Markdown that affects nothing after it; `keep_lines` if it was written as plain text.

    HTML and images become text and links, as on the page, and formulas get the delimiters that Markdown viewers know. If
    that is not enough, or with `plain`, the whole text goes into a code fence.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd").strip("\n")
    if plain or not is_readable(text):
        return fenced(text)
    found = "\n".join(_pieces(text, keep_lines))
    return found if _is_closed(found) else fenced(text)


def fenced(text: str) -> str:
    """`text` unchanged, in a code fence longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def quoted(markdown: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in markdown.split("\n"))


def inline(text: str) -> str:
    """`text` on one line, with Markdown's special characters escaped."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _pieces(text: str, keep_lines: bool) -> list[str]:
    """Fenced code unchanged, but always closed; prose escaped."""
    done: list[str] = []
    prose: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = FENCE.match(line)
        if fence:
            done.append(line)
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        elif mark:
            done += _escaped(prose, keep_lines)
            prose, fence = [], mark[1]
            done.append(line)
        else:
            prose.append(line)
    return [*done, fence] if fence else done + _escaped(prose, keep_lines)


def _escaped(lines: list[str], keep_lines: bool) -> list[str]:
    text = PROSE.sub(_replaced, "\n".join(lines))
    if keep_lines:
        text = re.sub(r"(?<=\S) *\n(?=[^\n]*\S)", "  \n", text)
    return [text] if lines else []


def _replaced(match: re.Match[str]) -> str:
    found = match[0]
    if latex := match["round"] or match["square"]:
        mark = "$" if match["round"] else "$$"
        return f"{mark}{_without_tags(latex.strip())}{mark}"
    if match["dollars"]:
        return _without_tags(found)
    return f"\\{found}" if match["tag"] or match["picture"] else found


def _without_tags(latex: str) -> str:
    """`latex` without `<`, which could begin a tag."""
    return latex.replace("<", r"\lt ")


def _is_closed(markdown: str) -> bool:
    """Whether text after `markdown` is parsed independently of it, and it contains no HTML or image."""
    reader = MarkdownIt("commonmark")
    emphasis(reader)
    bounds(reader)  # what exceeds the work limit counts as not closed
    tokens = reader.parse(f"{markdown}\n\n# {BEHIND}\n")
    inner = [child for token in tokens for child in token.children or ()]
    if any(token.type in ("html_block", "html_inline", "image") for token in [*tokens, *inner]):
        return False
    last = [(token.type, token.level, token.content) for token in tokens[-3:-1]]
    return last == [("heading_open", 0, ""), ("inline", 1, BEHIND)]


def export_markdown(documents: Sequence[Document], words: Texts, clock: Callable[[], float] = cpu_seconds) -> str:
    """The chosen branch of each document, images by name; what exceeds the time budget is plain text."""
    captions, budget = Captions(words), TimeBudget(clock)
    return "\n---\n\n".join("\n\n".join(_conversation(document, captions, budget)) + "\n" for document in documents)


def _conversation(document: Document, captions: Captions, budget: TimeBudget) -> Iterator[str]:
    yield f"# {inline(captions.title(document))}"
    yield f"*{inline(captions.about(document))}*"
    for message in shown_messages(document.conversation.path()):
        yield from _turn(message, captions, budget)


def _turn(message: ChatMessage, captions: Captions, budget: TimeBudget) -> Iterator[str]:
    if not isinstance(message, UserMessage):
        yield f"## {inline(captions.words('turn_model'))}"
        yield from _reply(message.reply, captions, budget)
        return
    yield f"## {inline(captions.words('turn_you'))}"
    for number, image in enumerate(message.images, 1):
        yield f"*{inline(captions.image_name(image, number))}*"
    if message.text.strip():
        yield contained(message.text, keep_lines=True, plain=budget.is_over)


def _reply(reply: Reply, captions: Captions, budget: TimeBudget) -> Iterator[str]:
    if reply.reasoning.strip():
        yield f"<details>\n<summary>{escape(captions.reasoning(reply))}</summary>"
        yield quoted(contained(reply.reasoning, keep_lines=True, plain=budget.is_over))
        yield "</details>"
    if reply.answer.strip():
        yield contained(reply.answer, plain=budget.is_over)
    for note in captions.notes(reply):
        yield f"*{inline(note)}*"
    if source := captions.source(reply):
        yield f"*{inline(source)}*"
