"""Makes markdown-it parse LaTeX as the page does: \\( \\), \\[ \\], $ $, $$ $$, bare environments, \\boxed{}, \\ce{}, \\pu{}.

It renders nothing. Each text is scanned once, so that no number of delimiters takes long. The rules are those of
ui/assets/math.js; a test keeps the two in step.
"""

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType

from magistral_ui.export.bounds import find_once, first_outside, spend_token
from magistral_ui.export.dollar_math import is_formula
from magistral_ui.export.mathml import DISPLAYS, ENVIRONMENTS

MARK = re.compile(r"\\(?:(begin|end)\{([A-Za-z]{1,20}\*?)\}|.)|[${}_^=\n]", re.DOTALL)
BARE = re.compile(r"\\(?:boxed|ce|pu)\{")
BEGIN = re.compile(r"\\begin\{([A-Za-z]{1,20}\*?)\}")
MAX_DISPLAY_LINES = 200
"""A display that has not closed after that many lines is not one."""
MAX_LINES_TO_FIRST_SIGN = 3
"""Lines within which a sign of LaTeX must occur for two dollars or a bracket to count as an open display."""
CITED = re.compile(r"\s*(?:[0-9]+[a-z]?(?:\s*[,;\u2013-]\s*[0-9]+[a-z]?)*|x|\u2026|\.\.\.)\s*\Z")
"""What escaped brackets contain that are meant literally, such as a reference."""
SIGN = re.compile(r"[\\^_=+<>*/(){}|$]")
WORD = re.compile(r"[^\W\d_]{2}")
SEEN = re.compile(r"\S")
INDEX = re.compile(r"[^\s\\=]+\Z")
NO_DISPLAY = re.compile(r"\s*(?:[;,.)]|[^A-Za-z0-9\\]*\Z)")
"""Between "$$" and "$$", what has no letter or digit, or continues a sentence, is not a display."""


@dataclass(slots=True)
class _Marks:
    """The positions of a text's marks, in order, and where each opening one is closed."""

    round: list[int] = field(default_factory=list)
    square: list[int] = field(default_factory=list)
    dollar: list[int] = field(default_factory=list)
    dollars: list[int] = field(default_factory=list)
    signs: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    braces: dict[int, int] = field(default_factory=dict)
    environments: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Formula:
    """The range to render, and the position after the closing mark; `to` is -1 if there is none."""

    begin: str
    display: bool
    start: int
    to: int
    after: int


COST = 4
"""Tokens that a formula counts as, plus half its characters."""
MAX_COST = 2_500
"""The cost of the longest formula that is rendered; longer ones are text."""
KINDS = (("$$", True, "dollars"), ("$", False, "dollar"), ("\\[", True, "square"), ("\\(", False, "round"))


def latex_marks(markdown: MarkdownIt, draw: Callable[[str, bool], str]) -> None:
    """Make `markdown` parse formulas; `draw(latex, display)` returns the HTML of one."""
    markdown.inline.ruler.before("escape", "math", _inline)
    markdown.block.ruler.before("fence", "math", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    markdown.add_render_rule("math", lambda _, tokens, index, *__: _drawn(tokens[index], draw))


def _drawn(token: Token, draw: Callable[[str, bool], str]) -> str:
    if token.meta.get("open"):
        return f'<pre class="math-open">{escape(token.content)}</pre>\n'
    html = draw(token.content, token.meta["display"])
    if not token.meta["display"]:
        return html
    name = "div" if token.block else "span"  # in a paragraph, which cannot contain a block
    return f'<{name} class="math-display" tabindex="0">{html}</{name}>' + ("\n" if token.block else "")


def _find_marks(text: str) -> _Marks:
    found = _Marks()
    braces: list[int] = []
    begun: dict[str, list[int]] = {}
    for match in MARK.finditer(text):
        mark, at = match[0], match.start()
        if mark in "_^=" or mark[1:2].isalpha():
            found.signs.append(at)
        if mark == "\n":
            found.lines.append(at)
        elif mark == "$":
            if found.dollar[-1:] == [at - 1]:
                found.dollars.append(at - 1)
            found.dollar.append(at)
        elif mark == "\\)":
            found.round.append(at)
        elif mark == "\\]":
            found.square.append(at)
        elif mark == "{":
            braces.append(at)
        elif mark == "}" and braces:
            found.braces[braces.pop()] = at + 1
        elif match[1] == "begin":
            begun.setdefault(match[2], []).append(at)
        elif match[1] == "end" and begun.get(match[2]):
            found.environments[begun[match[2]].pop()] = at
    return found


def _marks_of(text: str, env: EnvType) -> _Marks:
    return find_once(text, env, "marks", _find_marks)


def _formula_at(state: StateInline | StateBlock, at: int) -> _Formula | None:
    text = state.src
    if text[at : at + 1] not in ("$", "\\"):
        return None
    marks = _marks_of(text, state.env)
    for begin, display, ends in KINDS:
        if text.startswith(begin, at):
            start = at + len(begin)
            bare = BARE.match(text, start)  # which may contain formulas with dollar signs of their own
            to = _next(getattr(marks, ends), marks.braces.get(bare.end() - 1, start) if bare else start, -1)
            return _Formula(begin, display, start, to, to + len(begin))
    name = BEGIN.match(text, at)
    if name is None or name[1].rstrip("*") not in ENVIRONMENTS:
        return None
    end = marks.environments.get(at, -1)
    after = end + len("\\end{}") + len(name[1]) if end >= 0 else -1
    return _Formula("", name[1].rstrip("*") in DISPLAYS, at, after, after)


def _inline(state: StateInline, silent: bool) -> bool:
    text, at = state.src, state.pos
    if text[at] not in "$\\":
        return False
    if bare := BARE.match(text, at):
        end = _marks_of(text, state.env).braces.get(bare.end() - 1, -1)
        return 0 <= end <= state.posMax and _push_inline(state, text[at:end], False, end, silent)
    found = _formula_at(state, at)
    if found is None:
        return False
    if found.to < 0 or found.after > state.posMax:
        return found.begin != "$" and _open_inline(state, found.start, silent)
    content = text[found.start : found.to]
    if (
        not content.strip()
        or (found.begin == "$" and not is_formula(text, at, found.to))
        or (found.begin == "$$" and NO_DISPLAY.match(content))
        or (found.begin == "\\[" and _is_citation(text, at, found.after, state.env))
    ):
        return False
    return _push_inline(state, content, found.display, found.after, silent)


def _push_inline(state: StateInline, content: str, display: bool, after: int, silent: bool) -> bool:
    if not silent:
        spend_token(state.env, COST + len(content) / 2)
        token = state.push("math", "", 0)
        token.content, token.meta = content, {"display": display}
    state.pos = after
    return True


def _is_citation(text: str, at: int, after: int, env: EnvType) -> bool:
    """\\[1\\] in running text, or a list\\[0\\]."""
    content = text[at + 2 : after - 2]
    if re.match(r"[A-Za-z0-9_)]", text[max(0, at - 1) : at]) and INDEX.match(content):
        return True
    if not CITED.match(content) and (SIGN.search(content) or not WORD.search(content)):
        return False
    lines = _marks_of(text, env).lines
    line = bisect_left(lines, at)
    begin, end = lines[line - 1] + 1 if line else 0, _next(lines, after, len(text))
    return bool(SEEN.search(text, begin, at) or SEEN.search(text, after, end))


def _next(places: list[int], at: int, otherwise: int) -> int:
    """The first of `places` that is not before `at`."""
    index = bisect_left(places, at)
    return places[index] if index < len(places) else otherwise


def _open_inline(state: StateInline, start: int, silent: bool) -> bool:
    """Show a formula that never closes as it is, to the end of its line: its signs are not Markdown."""
    marks = _marks_of(state.src, state.env)
    end = min(_next(marks.lines, start, state.posMax), state.posMax)
    if _next(marks.signs, start, end) >= end:
        return False
    if not silent:
        state.append_pending(state.src[state.pos : end])
    state.pos = end
    return True


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    at = state.bMarks[first] + state.tShift[first]
    found = None if state.is_code_block(first) else _formula_at(state, at)
    if found is None or found.begin in ("$", "\\("):
        return False
    if found.to < 0:
        return _open_block(state, first, last, found, silent)
    stop = bisect_left(state.eMarks, found.after)
    if stop >= min(first_outside(state, first, last), first + MAX_DISPLAY_LINES):
        return _open_block(state, first, last, found, silent)
    # Text after the closing mark makes it an ordinary paragraph, in which the inline rule finds the display.
    if state.src[found.after : state.eMarks[stop]].strip():
        return False
    content = _lines(state, first, found.start, stop, found.to)
    if not content.strip() or (found.begin == "$$" and NO_DISPLAY.match(content)):
        return False
    if not silent:
        _push(state, content, [first, stop + 1])
    return True


def _lines(state: StateBlock, first: int, start: int, last: int, to: int) -> str:
    """The text from `start` to `to` in lines `first` to `last`, without the indent or mark of a list or quotation."""
    parts = []
    for line in range(first, last + 1):
        begin = start if line == first else state.bMarks[line] + min(state.tShift[line], state.blkIndent)
        parts.append(state.src[begin : max(begin, to) if line == last else state.eMarks[line]])
    return "\n".join(parts)


def _open_block(state: StateBlock, first: int, last: int, found: _Formula, silent: bool) -> bool:
    """Show a display that never closes as it is, up to the next empty line."""
    outside = first_outside(state, first, last)
    end = state.eMarks[min(first + MAX_LINES_TO_FIRST_SIGN, outside) - 1]
    if _next(_marks_of(state.src, state.env).signs, found.start, end) >= end:
        return False
    if silent:
        return True
    line = first + 1
    while line < outside and not state.isEmpty(line):
        line += 1
    content = _lines(state, first, found.start, line - 1, state.eMarks[line - 1])
    _push(state, found.begin + content, [first, line], is_open=True)
    return True


def _push(state: StateBlock, content: str, lines: list[int], is_open: bool = False) -> None:
    if not is_open:
        spend_token(state.env, min(COST + len(content) / 2, MAX_COST))
    token = state.push("math", "", 0)
    token.block, token.map = True, lines
    token.content, token.meta = content.strip(), {"display": True, "open": is_open}
    state.line = lines[1]
