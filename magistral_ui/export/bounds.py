"""Bounds the work of parsing one text, whatever is in it: the rest is shown as it was written, and no word is lost.

It counts steps, not time, so that a text looks the same on every machine. ui/assets/bounds.js has the same rule.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import Literal, TypeVar

from markdown_it import MarkdownIt
from markdown_it.parser_block import ParserBlock
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType

Found = TypeVar("Found")
MAX_TOKENS = 2_000
"""Of one text: block tokens, and as many inline tokens. Each becomes an element or a piece of text."""
CHARACTERS_PER_TOKEN = 40
"""This many characters at the beginning of the text, whatever they are, allow one token more."""
BEGINNING = 200_000
MAX_STEPS = 60_000
"""Plus half the length of the beginning: a mark costs several steps, skipping one a single step."""
STEPS_PER_NEW = 10
"""Steps for each character that is not a repetition; it also allows a token."""
MARK = 10
MARK_OF_LINE = 25
LONG_LINE = 4_000
"""Characters; a longer line is compared piece by piece."""
PIECE = 16
LINE = 8
"""What each line earns in addition, because short ones become as many elements as long ones."""
SENTENCE = 60
"""Characters of a line that may repeat, and then earns a part of what it did the first time."""
AGAIN = 1 / 3
LONGEST = 2_000_000
"""Characters; a longer text is not parsed at all."""
NEW = 1 / 25
"""The share of a long text that must not be repetition."""


class Exhausted(Exception):
    """The text takes too much work."""


@dataclass(slots=True)
class _Left:
    """The work that one text may still take."""

    tokens: float
    steps: float


def spend_token(env: EnvType, count: float = 1) -> None:
    """Count a token, or the cost of several, for the text of `env`. Raises Exhausted."""
    if (left := env.get("left")) is not None:
        left.tokens -= count
        if left.tokens < 0:
            raise Exhausted


def spend_steps(env: EnvType, steps: float = 1) -> None:
    """Count `steps`. Raises Exhausted."""
    if (left := env.get("left")) is not None:
        left.steps -= steps
        if left.steps < 0:
            raise Exhausted


def bounds(markdown: MarkdownIt) -> None:
    """Bound what `markdown` parses; to be called after `emphasis` and before any block rule is added."""
    markdown.block = _BoundedParser()
    markdown.block.ruler.before("table", "work", _count_line, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    markdown.core.ruler.at("block", _read_blocks)
    markdown.core.ruler.at("inline", _read_words)
    markdown.inline.ruler.before("text", "work", _count_mark)
    markdown.add_render_rule("plain", lambda _, tokens, index, *__: plain(tokens[index].content))


def plain(text: str) -> str:
    return f'<div class="plain">{escape(text)}</div>'


def news(text: str) -> float:
    """What `text` earns by not repeating itself: a token for each new character.

    Ordinary texts say something new in each line, and so earn more than they need; repeated marks earn next to nothing,
    however many there are.
    """
    lines = text.split("\n")
    seen = set(lines)
    first = sum(LINE + len(line) for line in seen if len(line) <= LONG_LINE)
    sentences = sum(len(line) for line in lines if SENTENCE <= len(line) <= LONG_LINE)
    again = sentences - sum(len(line) for line in seen if SENTENCE <= len(line) <= LONG_LINE)
    long = (line for line in seen if len(line) > LONG_LINE)
    pieces = {line[at : at + PIECE] for line in long for at in range(0, len(line), PIECE)}
    return first + AGAIN * again + PIECE * len(pieces)


def is_readable(text: str) -> bool:
    """Whether `text` is short, or long without repeating itself."""
    return len(text) <= BEGINNING or (len(text) <= LONGEST and news(text) >= NEW * len(text))


def bounded(state: StateCore, work: Callable[[], object], place: Callable[[], int] | None = None) -> None:
    """Run `work` on the tokens of `state`; where it is too much, cut them at the token that `place` returns."""
    beginning = min(len(state.src), BEGINNING)
    if "news" not in state.env:
        state.env["news"] = news(state.src)
    new = state.env["news"]
    state.env["left"] = _Left(
        MAX_TOKENS + beginning / CHARACTERS_PER_TOKEN + new, MAX_STEPS + beginning / 2 + STEPS_PER_NEW * new
    )
    try:
        work()
    except Exhausted:
        _cut(state, place() if place else len(state.tokens) - 1)
    finally:
        del state.env["left"]


class _BlockState(StateBlock):
    def push(self, ttype: str, tag: str, nesting: Literal[-1, 0, 1]) -> Token:
        spend_token(self.env)
        return super().push(ttype, tag, nesting)


class _BoundedParser(ParserBlock):
    def tokenize(self, state: StateBlock, startLine: int, endLine: int) -> None:
        """Text nested too deeply in lists and quotations becomes a paragraph of the innermost; markdown-it drops it."""
        if state.level < state.md.options.maxNesting:
            super().tokenize(state, startLine, endLine)
            return
        line = startLine
        while line < endLine and (state.isEmpty(line) or state.sCount[line] >= state.blkIndent):
            line += 1
        content = state.getLines(startLine, line, state.blkIndent, False).strip()
        state.line = line
        if content:
            state.push("paragraph_open", "p", 1).map = [startLine, line]
            words = state.push("inline", "", 0)
            words.content, words.map, words.children = content, [startLine, line], []
            state.push("paragraph_close", "p", -1)

    def parse(self, src: str, md: MarkdownIt, env: EnvType, outTokens: list[Token]) -> list[Token] | None:
        if not src:
            return None
        state = _BlockState(src, md, env, outTokens)
        self.tokenize(state, state.line, state.lineMax)
        return state.tokens


def _read_blocks(state: StateCore) -> None:
    bounded(state, lambda: state.md.block.parse(state.src, state.md, state.env, state.tokens))


def _read_words(state: StateCore) -> None:
    at = 0

    def all_words() -> None:
        nonlocal at
        for at, token in enumerate(state.tokens):  # noqa: B007  # `at` is read after an early end
            if token.type == "inline":
                token.children = []
                state.md.inline.parse(token.content, state.md, state.env, token.children)

    bounded(state, all_words, lambda: at)


def _count_mark(state: StateInline, _silent: bool) -> bool:
    spend_steps(state.env, MARK)
    return False


def _count_line(state: StateBlock, _first: int, _last: int, silent: bool) -> bool:
    spend_steps(state.env, MARK_OF_LINE)
    if not silent:
        spend_token(state.env)  # a definition makes no token of its own
    return False


def _is_place(token: Token) -> bool:
    """Whether a text can be cut before `token`: it knows the line it begins on, and what follows does not depend on it."""
    return bool(token.map) and token.nesting > 0 and not token.hidden and token.type not in ("tbody_open", "thead_open")


def _line_of(token: Token, otherwise: int) -> int:
    return token.map[0] if token.map else otherwise


def _place_of(tokens: list[Token], at: int) -> tuple[int, int]:
    """Where to cut to leave out token number `at`: before its block, row or item, and before what begins with it."""
    at = max(0, min(at, len(tokens) - 1))
    while at > 0 and not _is_place(tokens[at]):
        at -= 1
    start = _line_of(tokens[at], 0) if tokens else 0
    while at > 0 and tokens[at - 1].nesting > 0 and _line_of(tokens[at - 1], start) == start:
        at -= 1
    return at, start


def _ends(tokens: Iterable[Token]) -> list[Token]:
    """Closing tokens for all that is open after `tokens`."""
    open_ones: list[Token] = []
    for token in tokens:
        if token.nesting > 0 and (not token.hidden or token.type == "paragraph_open"):
            open_ones.append(token)
        elif token.nesting < 0 and open_ones:
            open_ones.pop()
    return [
        Token(
            each.type.removesuffix("_open") + "_close",
            each.tag,
            -1,
            block=True,
            level=each.level,
            markup=each.markup,
            hidden=each.hidden,
        )
        for each in reversed(open_ones)
    ]


def _cut(state: StateCore, at: int) -> None:
    """Show the text as it was written from the block, row or item that contains token number `at`."""
    to, start = _place_of(state.tokens, at)
    outermost = next((token for token in reversed(state.tokens[: to + 1]) if token.level == 0 and token.map), None)
    lines = state.src.split("\n")
    end = outermost.map[1] if outermost and outermost.map and outermost.map[1] > start else len(lines)
    del state.tokens[to:]
    state.tokens += _ends(state.tokens)
    for first, last in ((start, end), (end, len(lines))):
        content = "\n".join(lines[first:last])
        if content.strip():
            state.tokens.append(Token("plain", "", 0, block=True, map=[first, last], content=content))


def find_once(text: str, env: EnvType, key: str, find: Callable[[str], Found]) -> Found:
    """What `find` returns for `text`; the result for the latest text is kept."""
    if env.get(key, ("",))[0] is not text:
        env[key] = (text, find(text))
    found: Found = env[key][1]
    return found


def first_outside(state: StateBlock, line: int, end: int) -> int:
    """The first line after `line` outside the list item or quotation being parsed; `end` if there is none."""
    key = (state.blkIndent, state.level, end)
    known = state.env.get("inside")
    if known and known[0] == key and known[1] <= line < known[2]:
        return int(known[2])
    to = line + 1
    while to < end and (state.sCount[to] >= state.blkIndent or state.isEmpty(to)):
        to += 1
    state.env["inside"] = (key, line, to)
    return to
