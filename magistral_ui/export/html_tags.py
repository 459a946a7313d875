"""Parses the harmless HTML tags that models write: an allow-list, without attributes; all other tags stay text.

An inline tag without a partner on its line is text too. HTML blocks may contain Markdown. The rules are those of
ui/assets/html_tags.js; a test keeps the two in step.
"""

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType

from magistral_ui.export.bounds import find_once, first_outside, limit_work, spend_token

_INLINE = (
    "a abbr b bdi big cite code data del dfn em font i ins kbd label mark q rp rt ruby s samp small span strike strong sub "
    "sup time tt u var"
)
_BLOCK = (
    "address article aside blockquote caption center dd details div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6 header "
    "hr li main nav ol p section summary table tbody td tfoot th thead tr ul"
)
_AS_DIV = "address article aside footer header main nav section"
_AS_SPAN = "big data font label time"
_HOLDS_WORDS = "caption dd dt figcaption h3 li summary td th"
_ENDS_ITSELF = "caption dd details dt li summary tbody td tfoot th thead tr"
INLINE = set(_INLINE.split())
"""Tags allowed within a line."""
BREAKS = {"br", "wbr"}
BLOCK = set(_BLOCK.split())
"""Tags allowed on lines of their own."""
OTHER = dict.fromkeys(_AS_DIV.split(), "div") | dict.fromkeys(_AS_SPAN.split(), "span") | {"strike": "s", "tt": "code"}
"""Tags that are rendered as another."""
HOLDS_WORDS = set(_HOLDS_WORDS.split())
"""Tags that contain text directly, without a paragraph around it."""
ENDS_ITSELF = set(_ENDS_ITSELF.split())
"""Tags that end with their parent unless something else ends them."""
ENDED_BY = {
    "dd": {"dd", "dt"},
    "dt": {"dd", "dt"},
    "li": {"li"},
    "td": {"td", "th"},
    "th": {"td", "th"},
    "tr": {"td", "th", "tr"},
    "tbody": {"td", "th", "tr", "tbody", "thead"},
    "tfoot": {"td", "th", "tr", "tbody", "thead"},
}
"""Which open tags end when the tag begins."""
LIKE_MARKDOWN = {
    **{name: name for name in ("blockquote", "table", "td", "th")},
    "ol": "ordered_list",
    "ul": "bullet_list",
}
"""HTML blocks that are rendered like their Markdown counterparts."""
TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,9})((?:\s[^<>]*|/)?)>")
ADDRESS = re.compile(r"""\shref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
NOTE, NOTE_END = "<!--", "-->"
PRE = re.compile(r"<pre(?:\s[^<>]*)?>\n?", re.IGNORECASE)
PRE_END = re.compile("</pre>", re.IGNORECASE)
WITHIN_CODE = re.compile(r"</?(?:b|code|em|i|kbd|mark|s|samp|span|strong|u|var)(?:\s[^<>]*)?>", re.IGNORECASE)
MAX_DEPTH = 50
"""Levels of nested tags."""
LINE_BEGINS = re.compile(r"\n[ \t]*\Z")


def html_tags(markdown: MarkdownIt) -> None:
    alt: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    markdown.inline.ruler.at("html_inline", _inline)
    markdown.block.ruler.before("fence", "html_whole", _whole, alt)
    markdown.block.ruler.at("html_block", _lines, alt)
    markdown.core.ruler.after("block", "html_blocks", _blocks)
    markdown.core.ruler.after("inline", "html_pairs", _all_pairs)
    markdown.add_render_rule("html_note", lambda *_: "")
    markdown.add_render_rule("html_tag", lambda _, tokens, index, *__: _drawn(tokens[index]))


def _drawn(token: Token) -> str:
    if token.nesting == 0:
        return f"<{token.tag}>" if token.meta["drawn"] else ""
    return f"<{token.tag}>" if token.nesting > 0 else f"</{token.tag}>"


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] != "<":
        return False
    if state.src.startswith(NOTE, state.pos):
        return _inline_note(state)
    tag = TAG.match(state.src, state.pos, state.posMax)
    name = tag[2].lower() if tag else ""
    if tag is None or name not in INLINE | BREAKS:
        return False
    if not silent:
        token = state.push("html_tag", OTHER.get(name, name), 0)
        is_void = name in BREAKS or tag[3].endswith("/")
        token.meta = {"source": tag[0], "turn": 0 if is_void else -1 if tag[1] else 1, "drawn": name in BREAKS}
        if name == "a" and (address := ADDRESS.search(tag[3])):
            token.meta["href"] = next(each for each in address.groups() if each is not None)
    state.pos = tag.end()
    return True


def _inline_note(state: StateInline) -> bool:
    start = state.pos + len(NOTE)
    ends = find_once(
        state.src, state.env, "notes", lambda text: [match.start() for match in re.finditer(NOTE_END, text)]
    )
    index = bisect_left(ends, start)
    if index == len(ends) or ends[index] + len(NOTE_END) > state.posMax:
        return False
    state.pos = ends[index] + len(NOTE_END)
    return True


def _block_at(text: str, at: int) -> bool:
    tag = TAG.match(text, at)
    return tag is not None and tag[2].lower() in BLOCK


def _lines(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """Make lines that begin with a block tag a paragraph, which `_BlockSplitter` splits later."""
    if state.is_code_block(first) or not _block_at(state.src, state.bMarks[first] + state.tShift[first]):
        return False
    if silent:
        return True
    # Indented lines after them, as in an HTML table, are not code.
    line = first + 1
    while line < last and not state.isEmpty(line) and state.sCount[line] >= state.blkIndent:
        if not (_block_at(state.src, state.bMarks[line] + state.tShift[line]) or state.is_code_block(line)):
            break
        line += 1
    begin = state.push("paragraph_open", "p", 1)
    begin.meta = {"html": True}
    token = state.push("inline", "", 0)
    token.content = state.getLines(first, line, state.blkIndent, False).strip()
    token.children = []
    begin.map = token.map = [first, line]
    state.push("paragraph_close", "p", -1)
    state.line = line
    return True


def _whole(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """Parse a comment or <pre>, which may have several lines, up to its end; all ends are found in one pass."""
    start = state.bMarks[first] + state.tShift[first]
    if state.src[start : start + 1] != "<" or state.is_code_block(first):
        return False
    is_note = state.src.startswith(NOTE, start)
    if not is_note and not re.match(r"<pre[\s>]", state.src[start : start + 5], re.IGNORECASE):
        return False
    mark = re.compile(NOTE_END) if is_note else PRE_END
    key = "all_notes" if is_note else "all_pres"
    ends = find_once(state.src, state.env, key, lambda text: [match.start() for match in mark.finditer(text)])
    index = bisect_left(ends, start + len(NOTE))
    if index == len(ends):
        return False
    end = ends[index] + (len(NOTE_END) if is_note else len("</pre>"))
    line = bisect_left(state.eMarks, ends[index])
    if line >= first_outside(state, first, last) or state.src[end : state.eMarks[line]].strip():
        return False
    if silent:
        return True
    token = state.push("html_note" if is_note else "code_block", "" if is_note else "code", 0)
    token.map = [first, line + 1]
    if not is_note:
        text = PRE.sub("", state.getLines(first, line + 1, state.blkIndent, False).strip(), count=1)
        token.content = unescapeAll(WITHIN_CODE.sub("", text[: -len("</pre>")])).rstrip() + "\n"
    state.line = line + 1
    return True


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each code span in `text`, in which nothing is a tag."""
    runs = [match.span() for match in re.finditer("`+", text)]
    later: dict[int, int] = {}
    partner: list[int | None] = [None] * len(runs)
    for each in range(len(runs) - 1, -1, -1):
        length = runs[each][1] - runs[each][0]
        partner[each] = later.get(length)
        later[length] = each
    spans, each = [], 0
    while each < len(runs):
        other = partner[each]
        if other is not None:
            spans.append((runs[each][0], runs[other][1]))
            each = other
        each += 1
    return spans


@dataclass(slots=True)
class _Tag:
    start: int
    end: int
    name: str
    source: str
    closes: bool
    means: bool


def _block_tags(text: str, html: bool, opened: Counter[str]) -> list[_Tag]:
    """The block tags in `text` that are meant as tags: they begin a line, have a partner, or end one that is `opened`.

    `html` says that the text begins with a block tag.
    """
    spans, tags, begun = _code_spans(text), list[_Tag](), dict[str, list[_Tag]]()
    behind = span = 0  # the end of the last tag, and the next code span
    leads = True  # only tags were on this line so far
    for match in TAG.finditer(text):
        at, name, closes = match.start(), match[2].lower(), bool(match[1])
        while span < len(spans) and spans[span][1] <= at:
            span += 1
        if name not in BLOCK or (span < len(spans) and spans[span][0] <= at):
            continue
        between = text[behind:at]
        leads = bool(LINE_BEGINS.search(between)) if between.strip() else leads or "\n" in between
        behind = match.end()
        tag = _Tag(at, behind, name, match[0], closes, leads or (html and (closes or name in ENDS_ITSELF)))
        tags.append(tag)
        if not closes:
            begun.setdefault(name, []).append(tag)
        elif begun.get(name):
            begun[name].pop().means = tag.means = True
        elif opened[name]:
            tag.means = True
    return [tag for tag in tags if tag.means]


@dataclass(slots=True)
class _Open:
    name: str
    drawn: str
    source: str
    beside: bool
    at: int


@dataclass(slots=True)
class _BlockSplitter:
    """Splits paragraphs and cells at their block tags, and ends each HTML block within the Markdown block where it began."""

    env: EnvType
    out: list[Token] = field(default_factory=list)
    frames: list[list[_Open]] = field(default_factory=lambda: [[]])
    """For each open Markdown block, the HTML blocks open in it."""
    depth: int = 0
    opened: Counter[str] = field(default_factory=Counter)

    def put(self, kind: str, tag: str, nesting: int, **fields: Any) -> Token:
        spend_token(self.env)
        token = Token(kind, tag, nesting, block=True, **{"level": self.level, **fields})  # type: ignore[arg-type]  # -1, 0, 1
        self.out.append(token)
        return token

    @property
    def level(self) -> int:
        return len(self.frames) - 1 + self.depth

    def keep(self, token: Token) -> None:
        token.level += self.depth
        self.out.append(token)

    def open(self, tag: _Tag, beside: bool) -> None:
        while self.frames[-1] and self.frames[-1][-1].name in ENDED_BY.get(tag.name, ()):
            self.end(True)
        heading = re.fullmatch("h[1-6]", tag.name)
        drawn = "h3" if heading else OTHER.get(tag.name, tag.name)
        token = self.put(f"{LIKE_MARKDOWN.get(drawn, 'html_block')}_open", drawn, 1)
        if heading:
            token.attrSet("class", f"level-{tag.name[1]}")
        self.frames[-1].append(_Open(tag.name, drawn, tag.source, beside, len(self.out) - 1))
        self.opened[tag.name] += 1
        self.depth += 1

    def end(self, partner: bool) -> None:
        """End the innermost HTML block; `partner` says whether its own closing tag ends it."""
        block = self.frames[-1].pop()
        self.depth -= 1
        self.opened[block.name] -= 1
        begin = self.out[block.at]
        words = next((token for token in self.out[block.at + 1 : block.at + 3] if token.type == "inline"), None)
        if not partner and block.beside and words and block.name not in ENDS_ITSELF:
            # "<div> is a block": a tag that is only mentioned.
            words.content = f"{block.source} {words.content}"
            begin.hidden = True
            return
        if not partner and block.name == "details":
            begin.attrSet("open", "")  # never closed, so it must not hide the rest
        self.put(f"{LIKE_MARKDOWN.get(block.drawn, 'html_block')}_close", block.drawn, -1)

    def end_all(self) -> None:
        while self.frames[-1]:
            self.end(False)

    def close(self, name: str) -> None:
        if not self.opened[name] or all(each.name != name for each in self.frames[-1]):
            return
        while self.frames[-1][-1].name != name:
            self.end(False)
        self.end(True)

    def words(self, text: str, is_cell: bool) -> None:
        text = text.strip()
        if not text:
            return
        inner = self.frames[-1]
        bare = is_cell or bool(inner and inner[-1].drawn in HOLDS_WORDS)
        self.put("paragraph_open", "p", 1, hidden=bare)
        self.put("inline", "", 0, content=text, children=[], level=self.level + 1)
        self.put("paragraph_close", "p", -1, hidden=bare)

    def split(self, text: str, tags: list[_Tag], is_cell: bool) -> None:
        at = 0
        for tag, following in pairwise([*tags, None]):
            assert tag is not None
            self.words(text[at : tag.start], is_cell)
            at = tag.end
            if tag.name == "p":
                continue
            if tag.closes:
                self.close(tag.name)
            elif tag.name == "hr":
                self.put("hr", "hr", 0)
            elif self.depth < MAX_DEPTH:
                line = text[at : following.start if following else len(text)].split("\n", 1)[0]
                self.open(tag, bool(line.strip()))
        self.words(text[at:], is_cell)


def _blocks(state: StateCore) -> None:
    if "<" not in state.src:
        return
    made, tokens = _BlockSplitter(state.env), state.tokens
    state.tokens = made.out
    limit_work(state, lambda: _split_blocks(tokens, made))


def _split_blocks(tokens: list[Token], made: _BlockSplitter) -> None:
    index = 0
    while index < len(tokens):
        token = tokens[index]
        is_cell = token.type == "inline" and index > 0 and tokens[index - 1].type in ("td_open", "th_open")
        inline = token if is_cell else tokens[index + 1] if token.type == "paragraph_open" else None
        if (
            inline
            and "<" in inline.content
            and (tags := _block_tags(inline.content, bool(token.meta.get("html")), made.opened))
        ):
            made.split(inline.content, tags, is_cell)
            index += 1 if is_cell else 3
            continue
        if token.nesting < 0:
            made.end_all()
            made.frames.pop()
        made.keep(token)
        if token.nesting > 0:
            made.frames.append([])
        index += 1
    made.end_all()


def _all_pairs(state: StateCore) -> None:
    for token in state.tokens:
        if token.children:
            _pairs(token.children)


@dataclass(slots=True)
class _Frame:
    open: list[Token] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)


def _pairs(children: list[Token]) -> None:
    """Pair the inline tags: partners are in the same line and the same emphasis; a tag without one becomes text."""
    frames = [_Frame()]
    for token in children:
        frame, turn = frames[-1], token.meta.get("turn", 0)
        if turn > 0 and len(frame.open) < MAX_DEPTH:
            frame.open.append(token)
            frame.count[token.tag] += 1
        elif turn > 0 or (turn < 0 and not frame.count[token.tag]):
            _as_text(token)
        elif turn < 0:
            while (last := frame.open.pop()).tag != token.tag:
                frame.count[last.tag] -= 1
                _as_text(last)
            frame.count[last.tag] -= 1
            _pair(last, token)
        elif token.nesting > 0:
            frames.append(_Frame())
        elif token.nesting < 0 and len(frames) > 1:
            for each in frames.pop().open:
                _as_text(each)
    for frame in frames:
        for each in frame.open:
            _as_text(each)


def _as_text(token: Token) -> None:
    token.type, token.tag, token.nesting, token.content = "text", "", 0, token.meta["source"]


def _pair(begin: Token, end: Token) -> None:
    begin.nesting, end.nesting = 1, -1
    if begin.tag == "a":  # a link like any other, or just its text
        begin.type, end.type = "link_open", "link_close"
        begin.attrs = {"href": begin.meta.get("href", "")}
