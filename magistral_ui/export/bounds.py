"""Limits the work of parsing one text, whatever it contains: beyond the limit, the text is shown as it is, and none is lost.

It counts steps, not time, so that a text looks the same on every machine. ui/assets/bounds.js has the same rule for the page.
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
"""Block tokens of one text, and as many inline tokens. Each becomes an element or a piece of text."""
CHARACTERS_PER_TOKEN = 40
"""This many characters of the prefix, whatever they are, allow one more token."""
PREFIX_LENGTH = 200_000
MAX_STEPS = 60_000
"""Plus half the length of the prefix. A mark costs several steps, skipping one a single step."""
STEPS_PER_NEW = 10
"""Steps that each novel character allows; it also allows a token."""
STEPS_PER_MARK = 10
STEPS_PER_LINE = 25
MAX_WHOLE_LINE = 4_000
"""Characters; a longer line is compared piece by piece."""
PIECE_LENGTH = 16
TOKENS_PER_LINE = 8
"""Tokens that each line allows in addition, because short lines become as many elements as long ones."""
MIN_REPEATABLE_LINE = 60
"""Characters from which a repeated line still counts, in part."""
REPEATED_SHARE = 1 / 3
MAX_LENGTH = 2_000_000
"""Characters; a longer text is not parsed at all."""
MIN_NOVEL_SHARE = 1 / 25
"""The share of a long text that must be novel."""


class WorkLimitExceeded(Exception):
    """The text takes too much work to parse."""


@dataclass(slots=True)
class _Left:
    """The work that one text may still take."""

    tokens: float
    steps: float


def spend_token(env: EnvType, count: float = 1) -> None:
    """Spend `count` tokens of the limit for the text of `env`. Raises WorkLimitExceeded."""
    if (left := env.get("left")) is not None:
        left.tokens -= count
        if left.tokens < 0:
            raise WorkLimitExceeded


def spend_steps(env: EnvType, steps: float = 1) -> None:
    """Spend `steps` of the limit. Raises WorkLimitExceeded."""
    if (left := env.get("left")) is not None:
        left.steps -= steps
        if left.steps < 0:
            raise WorkLimitExceeded


def bounds(markdown: MarkdownIt) -> None:
    """Limit the work of `markdown`. Call this after `emphasis` and before adding any block rule."""
    markdown.block = _BoundedParser()
    markdown.block.ruler.before("table", "work", _count_line, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    markdown.core.ruler.at("block", _read_blocks)
    markdown.core.ruler.at("inline", _read_words)
    markdown.inline.ruler.before("text", "work", _count_mark)
    markdown.add_render_rule("plain", lambda _, tokens, index, *__: plain(tokens[index].content))


def plain(text: str) -> str:
    return f'<div class="plain">{escape(text)}</div>'


def novelty(text: str) -> float:
    """How much of `text` is not repetition, in characters: each allows a token.

    Ordinary texts say something new in each line, which allows more than they need; repeated marks allow next to nothing,
    however many there are.
    """
    lines = text.split("\n")
    seen = set(lines)
    first = sum(TOKENS_PER_LINE + len(line) for line in seen if len(line) <= MAX_WHOLE_LINE)
    sentences = sum(len(line) for line in lines if MIN_REPEATABLE_LINE <= len(line) <= MAX_WHOLE_LINE)
    again = sentences - sum(len(line) for line in seen if MIN_REPEATABLE_LINE <= len(line) <= MAX_WHOLE_LINE)
    long = (line for line in seen if len(line) > MAX_WHOLE_LINE)
    pieces = {line[at : at + PIECE_LENGTH] for line in long for at in range(0, len(line), PIECE_LENGTH)}
    return first + REPEATED_SHARE * again + PIECE_LENGTH * len(pieces)


def is_readable(text: str) -> bool:
    """Whether `text` is short, or long without much repetition."""
    return len(text) <= PREFIX_LENGTH or (len(text) <= MAX_LENGTH and novelty(text) >= MIN_NOVEL_SHARE * len(text))


def limit_work(state: StateCore, work: Callable[[], object], place: Callable[[], int] | None = None) -> None:
    """Run `work` on the tokens of `state`; if it exceeds the limit, cut them at the token that `place` returns."""
    beginning = min(len(state.src), PREFIX_LENGTH)
    if "novelty" not in state.env:
        state.env["novelty"] = novelty(state.src)
    new = state.env["novelty"]
    state.env["left"] = _Left(
        MAX_TOKENS + beginning / CHARACTERS_PER_TOKEN + new, MAX_STEPS + beginning / 2 + STEPS_PER_NEW * new
    )
    try:
        work()
    except WorkLimitExceeded:
        _cut(state, place() if place else len(state.tokens) - 1)
    finally:
        del state.env["left"]


class _BlockState(StateBlock):
    def push(self, ttype: str, tag: str, nesting: Literal[-1, 0, 1]) -> Token:
        spend_token(self.env)
        return super().push(ttype, tag, nesting)


class _BoundedParser(ParserBlock):
    def tokenize(self, state: StateBlock, startLine: int, endLine: int) -> None:
        """Make text nested too deeply a paragraph of the innermost list or quotation; markdown-it would drop it."""
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
    limit_work(state, lambda: state.md.block.parse(state.src, state.md, state.env, state.tokens))


def _read_words(state: StateCore) -> None:
    at = 0

    def all_words() -> None:
        nonlocal at
        for at, token in enumerate(state.tokens):  # noqa: B007  # `at` is read after an early end
            if token.type == "inline":
                token.children = []
                state.md.inline.parse(token.content, state.md, state.env, token.children)

    limit_work(state, all_words, lambda: at)


def _count_mark(state: StateInline, _silent: bool) -> bool:
    spend_steps(state.env, STEPS_PER_MARK)
    return False


def _count_line(state: StateBlock, _first: int, _last: int, silent: bool) -> bool:
    spend_steps(state.env, STEPS_PER_LINE)
    if not silent:
        spend_token(state.env)  # a definition makes no token of its own
    return False


def _can_cut_before(token: Token) -> bool:
    """Whether a text can be cut before `token`: its line is known, and what follows does not depend on it."""
    return bool(token.map) and token.nesting > 0 and not token.hidden and token.type not in ("tbody_open", "thead_open")


def _line_of(token: Token, otherwise: int) -> int:
    return token.map[0] if token.map else otherwise


def _cut_position(tokens: list[Token], at: int) -> tuple[int, int]:
    """Where to cut to leave out token number `at`: before its block, row or item, and before any that begin with that."""
    at = max(0, min(at, len(tokens) - 1))
    while at > 0 and not _can_cut_before(tokens[at]):
        at -= 1
    start = _line_of(tokens[at], 0) if tokens else 0
    while at > 0 and tokens[at - 1].nesting > 0 and _line_of(tokens[at - 1], start) == start:
        at -= 1
    return at, start


def _closing_tokens(tokens: Iterable[Token]) -> list[Token]:
    """Closing tokens for everything still open after `tokens`."""
    unclosed: list[Token] = []
    for token in tokens:
        if token.nesting > 0 and (not token.hidden or token.type == "paragraph_open"):
            unclosed.append(token)
        elif token.nesting < 0 and unclosed:
            unclosed.pop()
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
        for each in reversed(unclosed)
    ]


def _cut(state: StateCore, at: int) -> None:
    """Show the source text from the block, row or item that contains token number `at`."""
    to, start = _cut_position(state.tokens, at)
    outermost = next((token for token in reversed(state.tokens[: to + 1]) if token.level == 0 and token.map), None)
    lines = state.src.split("\n")
    end = outermost.map[1] if outermost and outermost.map and outermost.map[1] > start else len(lines)
    del state.tokens[to:]
    state.tokens += _closing_tokens(state.tokens)
    for first, last in ((start, end), (end, len(lines))):
        content = "\n".join(lines[first:last])
        if content.strip():
            state.tokens.append(Token("plain", "", 0, block=True, map=[first, last], content=content))


def find_once(text: str, env: EnvType, key: str, find: Callable[[str], Found]) -> Found:
    """What `find` returns for `text`; the result for the latest text is cached."""
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
