"""Extensions of CommonMark in answers: kept line breaks, task lists, footnotes, autolinks, links only to web and
mail, a text direction for each block, and emphasis next to scripts written without spaces between words.

The rules are those of ui/assets/gfm.js and emphasis.js.
"""

import re
import unicodedata
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import EnvType
from mdit_py_plugins.footnote import footnote_plugin

from magistral_ui.export.bounds import spend_steps, spend_token

FOLLOWED = re.compile(r"\s*(?:https?:|mailto:)", re.IGNORECASE)
TASK = re.compile("\\[([ xX])\\](?=[ \u00a0])")
REFERENCE = re.compile(r"\[\^([^\s[\]]{1,100})\]")
MAX_BACKREFERENCES = 20
"""Links from a footnote back to its references."""
RIGHT_TO_LEFT = ("R", "AL")
DIRECTED = ("blockquote", "bullet_list", "ordered_list")
MAX_URL_LENGTH = 2_000
"""Characters of an address."""
SCHEME = re.compile(r"(?:^|[^a-z0-9.+-])(https?)$", re.IGNORECASE)
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u19e0-\u19ff\u2e80-\u2fdf\u2ff0-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\ua9e0-\ua9ff"
    "\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff\ufe10-\ufe1f\ufe30-\ufe4f\uff01-\uffee\U0001b000-\U0001b16f\U00020000-\U000323af]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese, Korean and Yi, with their punctuation and full-width forms."""
SPACE = re.compile("[\t-\r \u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]")
JOINER = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Characters that only modify the one before them."""


def gfm(markdown: MarkdownIt) -> None:
    """Add all of these extensions except emphasis to `markdown`, whose `linkify` must be on."""
    assert markdown.linkify is not None
    markdown.linkify.set({"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    markdown.inline.ruler.at("linkify", _address)
    footnote_plugin(markdown, inline=False)
    markdown.inline.ruler.at("footnote_ref", _reference)
    markdown.core.ruler.at("footnote_tail", _tail)
    markdown.validateLink = lambda url: url is not None  # type: ignore[method-assign]  # _links() decides, and keeps their text
    markdown.core.ruler.push("gfm", _all)
    markdown.add_render_rule("footnote_caption", lambda _, tokens, index, *__: str(tokens[index].meta["id"] + 1))
    markdown.add_render_rule("footnote_block_open", lambda *_: '<section class="footnotes"><ol>\n')
    markdown.add_render_rule("footnote_block_close", lambda *_: "</ol></section>\n")
    markdown.add_render_rule("task", lambda _, tokens, index, *__: _box(tokens[index].meta["done"]))


def is_followed(address: str) -> bool:
    """Whether `address` may be followed: web and mail."""
    return bool(FOLLOWED.match(address))


def direction_of(text: str) -> str:
    """ "rtl" or "ltr", by the first letter of `text`; "" if it has none."""
    letter = next((each for each in text if each.isalpha()), "")
    if not letter:
        return ""
    return "rtl" if unicodedata.bidirectional(letter) in RIGHT_TO_LEFT else "ltr"


def _box(done: bool) -> str:
    return f'<span class="task{" done" if done else ""}">{"☑" if done else "☐"}</span>'


def _all(state: StateCore) -> None:
    for at, token in enumerate(state.tokens):
        if token.type == "list_item_open":
            _task(state.tokens, at)
        if token.children:
            _links(token.children)
            _breaks(token.children, at > 0 and state.tokens[at - 1].type == "heading_open")
    _directions(state.tokens)


def _breaks(children: list[Token], in_heading: bool) -> None:
    """Keep line breaks, but only one if a tag or a display breaks the line too; a heading is one line."""
    for at, token in enumerate(children):
        if token.type not in ("softbreak", "hardbreak"):
            continue
        before = children[max(0, at - 1)]
        if before.type == "text" and not before.content:
            before = children[max(0, at - 2)]
        after = children[at + 1 : at + 2]
        once = before.type == "html_tag" and before.tag == "br"
        if in_heading or once or any(each.type == "math" and each.meta["display"] for each in (before, *after)):
            token.type, token.tag, token.content = "text", "", " " if in_heading else "\n"


def _links(children: list[Token]) -> None:
    """A link that must not be followed becomes its text."""
    dropped = 0
    for token in children:
        if token.type == "link_open" and not is_followed(str(token.attrGet("href") or "")):
            dropped += 1
        elif token.type == "link_close" and dropped:
            dropped -= 1
        else:
            continue
        token.type, token.tag, token.nesting, token.content, token.attrs = "text", "", 0, "", {}


def _task(tokens: list[Token], at: int) -> None:
    """ "[x]" at the beginning of a list item."""
    inline = tokens[at + 2] if at + 2 < len(tokens) else None
    if inline is None or inline.type != "inline" or not inline.children:
        return
    first, mark = inline.children[0], TASK.match(inline.content)
    if mark is None or first.type != "text" or not first.content.startswith("["):
        return
    tokens[at].attrJoin("class", "task-list-item")
    first.content = first.content[3:]
    inline.children.insert(0, Token("task", "", 0, meta={"done": mark[1] != " "}))


def _directions(tokens: list[Token]) -> None:
    """Give the outermost list or quotation `dir="auto"`, and an inner one a direction only if it differs."""
    ahead, following = [""] * len(tokens), ""
    for at in range(len(tokens) - 1, -1, -1):
        if tokens[at].type == "inline":
            following = direction_of(tokens[at].content) or following
        ahead[at] = following
    around: list[str] = []
    for token, direction in zip(tokens, ahead, strict=True):
        name, _, word = token.type.rpartition("_")
        if token.type in ("th_open", "td_open"):
            token.attrSet("dir", "auto")
        elif token.type == "table_open":
            token.meta = {"direction": direction}
        elif name in DIRECTED and word == "open":
            if not around:
                token.attrSet("dir", "auto")
            elif direction and direction != around[-1]:
                token.attrSet("dir", direction)
            around.append(direction)
        elif name in DIRECTED and around:
            around.pop()


def _reference(state: StateInline, silent: bool) -> bool:
    """Parse a footnote reference. The plugin's own rule would search for the end of each one again."""
    notes = state.env.get("footnotes")
    found = REFERENCE.match(state.src, state.pos, state.posMax) if notes else None
    if notes is None or found is None or f":{found[1]}" not in notes["refs"]:
        return False
    if not silent:
        number = notes["refs"][f":{found[1]}"]
        if number < 0:
            number = notes["refs"][f":{found[1]}"] = len(notes["list"])
            notes["list"][number] = {"label": found[1], "count": 0}
        note = notes["list"][number]
        state.push("footnote_ref", "", 0).meta = {"id": number, "subId": note["count"], "label": found[1]}
        note["count"] += 1
    state.pos = found.end()
    return True


def _tail(state: StateCore) -> None:
    """Put the footnotes at the end, in the order of their references; unreferenced ones come last."""
    found = state.env.get("footnotes")
    if not found:
        return
    notes: dict[str, list[Token]] = {}
    rest: list[Token] = []
    into = rest
    for token in state.tokens:
        if token.type == "footnote_reference_open":
            into = notes[token.meta["label"]] = []
        elif token.type == "footnote_reference_close":
            into = rest
        else:
            into.append(token)
    listed = [(str(note["label"]), int(note["count"])) for note in found["list"].values()]
    referred = {label for label, _ in listed}
    listed += [(label, 0) for label in notes if label not in referred]
    rest.append(Token("footnote_block_open", "", 1, block=True))
    for number, (label, count) in enumerate(listed):
        rest.append(Token("footnote_open", "", 1, block=True, meta={"id": number, "label": label}))
        tokens = notes.get(label, [])
        last = [tokens.pop()] if tokens and tokens[-1].type == "paragraph_close" else []
        ways = (
            Token("footnote_anchor", "", 0, block=True, meta={"id": number, "subId": each, "label": label})
            for each in range(min(count, MAX_BACKREFERENCES))
        )
        rest += [*tokens, *ways, *last, Token("footnote_close", "", -1, block=True)]
    rest.append(Token("footnote_block_close", "", -1, block=True))
    state.tokens = rest


def _address(state: StateInline, silent: bool) -> bool:
    # markdown-it's own rule scans and copies everything before and after each address.
    if state.linkLevel > 0 or not state.src.startswith("://", state.pos):
        return False
    scheme = SCHEME.search(state.src[max(0, state.pos - 6) : state.pos])
    linkify = state.md.linkify
    if scheme is None or linkify is None or not state.pending.endswith(scheme[1]):
        return False
    start = state.pos - len(scheme[1])
    link = linkify.match_at_start(state.src[start : start + MAX_URL_LENGTH])
    if not link:
        return False
    address = str(link.url).rstrip("*")  # emphasis
    if not silent:
        state.pending = state.pending[: -len(scheme[1])]
        token = state.push("link_open", "a", 1)
        token.attrs, token.markup, token.info = {"href": state.md.normalizeLink(address)}, "linkify", "auto"
        state.push("text", "", 0).content = state.md.normalizeLinkText(address)
        token = state.push("link_close", "a", -1)
        token.markup, token.info = "linkify", "auto"
    state.pos = start + len(address)
    return True


class _EmphasisState(StateInline):
    def pushPending(self) -> Token:
        spend_token(self.env)
        return super().pushPending()

    def push(self, ttype: str, tag: str, nesting: Literal[-1, 0, 1]) -> Token:
        spend_token(self.env)
        return super().push(ttype, tag, nesting)

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:
        """Whether the run of marks at `start` may open and close.

        In CommonMark, punctuation inside the marks needs a space or punctuation outside them. In scripts without spaces
        between words, a letter outside is enough, and so is that script's own punctuation inside.
        """
        stop = start
        while stop < self.posMax and self.src[stop] == self.src[start]:
            stop += 1
        last, following = _before(self.src, start), self.src[stop] if stop < self.posMax else " "
        last_mark, next_mark = _is_punctuation(last), _is_punctuation(following)
        last_unspaced, next_unspaced = bool(UNSPACED.match(last)), bool(UNSPACED.match(following))
        last_space, next_space = bool(SPACE.match(last)), bool(SPACE.match(following))
        left = not next_space and (not next_mark or next_unspaced or last_space or last_mark or last_unspaced)
        right = not last_space and (not last_mark or last_unspaced or next_space or next_mark or next_unspaced)
        return Scanned(
            left and (canSplitWord or not right or last_mark),
            right and (canSplitWord or not left or next_mark),
            stop - start,
        )


class _Inline(ParserInline):
    def skipToken(self, state: StateInline) -> None:
        spend_steps(state.env)
        super().skipToken(state)

    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        state = _EmphasisState(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


def emphasis(markdown: MarkdownIt) -> None:
    """Let emphasis begin and end next to scripts without spaces. Call this before adding any other rule."""
    markdown.inline = _Inline()


def _before(text: str, at: int) -> str:
    """The character before `at`, or a space at the beginning."""
    while at > 0:
        if not JOINER.match(text[at - 1]):
            return text[at - 1]
        at -= 1
    return " "


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
