"""Teaches markdown-it to read LaTeX as the page does: \\( \\), \\[ \\], $ $, $$ $$ and a bare \\boxed{}; it draws nothing.

The rules are those of ui/assets/math.js; a test holds the two together.
"""

import re
from collections.abc import Callable

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from magistral_ui.chat.export.formulas import LONGEST

LONGEST_DISPLAY = 500
"""Lines; a display that has not closed by then was none, and looking further would take long."""
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
DEEPEST_BOX = 30
"""Braces inside each other: looking into more, for each of many boxes, would take long."""
BOXED = "\\boxed{"


def latex_marks(markdown: MarkdownIt, draw: Callable[[str, bool], str]) -> None:
    """Let `markdown` read formulas; `draw(latex, display)` gives the HTML of one."""
    markdown.inline.ruler.before("escape", "math", _inline)
    markdown.block.ruler.before("fence", "math", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    markdown.add_render_rule("math", lambda _, tokens, index, *__: _drawn(tokens[index], draw))


def _drawn(token: Token, draw: Callable[[str, bool], str]) -> str:
    html = draw(token.content, token.meta["display"])
    return f'<div class="math-display" tabindex="0">{html}</div>\n' if token.meta["display"] else html


def _marks(text: str, at: int) -> tuple[str, str, bool] | None:
    """The pair of marks that begins at `at`, and whether it is for a display."""
    if text.startswith("$$", at):
        return "$$", "$$", True
    if text.startswith("\\[", at):
        return "\\[", "\\]", True
    if text.startswith("\\(", at):
        return "\\(", "\\)", False
    return ("$", "$", False) if text.startswith("$", at) else None


def _closing(text: str, end: str, start: int, limit: int) -> int:
    """Where `end` closes what began before `start`: not escaped, not past `limit`; -1 if it does not."""
    at = text.find(end, start, limit)
    while at >= 0:
        slashes = len(text[start:at]) - len(text[start:at].rstrip("\\"))
        if slashes % 2 == 0:
            return at
        at = text.find(end, at + 1, limit)
    return -1


def _closing_brace(text: str, start: int, limit: int) -> int:
    """The end of the braces that open at `start`, or -1."""
    depth = 0
    for brace in BRACE.finditer(text, start, limit):
        if brace[0] in ("{", "}"):
            depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
        if depth > DEEPEST_BOX:
            return -1
    return -1


def _inline(state: StateInline, silent: bool) -> bool:
    text, at, limit = state.src, state.pos, min(state.posMax, state.pos + LONGEST)
    display = False
    if text.startswith(BOXED, at):
        start, stop = at, _closing_brace(text, at + len(BOXED) - 1, limit)
        after = stop
    else:
        marks = _marks(text, at)
        if marks is None:
            return False
        begin, end, display = marks
        start = at + len(begin)
        stop = _closing(text, end, start, limit)
        after = stop + len(end)
    if stop < 0 or not text[start:stop].strip():
        return False
    # Money is no mathematics: "$5 and $10" must stay as it is (the rule that pandoc uses).
    touched = text[start].isspace() or text[stop - 1].isspace() or text[after : after + 1].isdecimal()
    if text[at] == "$" and not display and touched:
        return False
    if not silent:
        token = state.push("math", "", 0)
        token.content, token.meta = text[start:stop], {"display": display}
    state.pos = after
    return True


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    begin = state.bMarks[first] + state.tShift[first]
    marks = _marks(state.src, begin)
    if state.is_code_block(first) or marks is None or not marks[2]:
        return False
    start, content = begin + len(marks[0]), ""
    for line in range(first, min(last, first + LONGEST_DISPLAY)):
        if line > first:
            if state.sCount[line] < state.blkIndent and not state.isEmpty(line):
                return False
            start = state.bMarks[line] + min(state.tShift[line], state.blkIndent)
        stop = _closing(state.src, marks[1], start, state.eMarks[line])
        if stop < 0:
            content += state.src[start : state.eMarks[line]] + "\n"
            continue
        # Text behind the closing mark: an ordinary paragraph, in which the inline rule finds the display.
        if state.src[stop + len(marks[1]) : state.eMarks[line]].strip():
            return False
        if not silent:
            token = state.push("math", "", 0)
            token.block, token.map = True, [first, line + 1]
            token.content, token.meta = (content + state.src[start:stop]).strip(), {"display": True}
            state.line = line + 1
        return True
    return False
