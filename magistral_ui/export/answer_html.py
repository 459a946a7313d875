"""Renders an answer's Markdown as HTML without scripts or active content: allowed tags only, and web and mail links."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from magistral_ui.export.bounds import bounds, is_readable, plain
from magistral_ui.export.document import Texts, TimeBudget
from magistral_ui.export.gfm import emphasis, gfm, is_followed
from magistral_ui.export.html_tags import html_tags
from magistral_ui.export.latex_delimiters import latex_marks
from magistral_ui.export.mathml import Formulas, FormulasHere

SCHEMES = {"http", "https", "mailto"}
# Everything that the renderer produces. nh3 removes anything else, in case of a bug in the renderer.
TEXT_TAGS = "p br wbr hr h3 ul ol li blockquote pre code em strong s a table thead tbody tr th td div section span"
ALLOWED_TAGS = (
    "abbr b bdi caption center cite del details dfn dd dl dt figcaption figure i ins kbd mark q rp rt ruby samp small sub "
    "summary sup tfoot u var"
)
MATH_TAGS = (
    "math mrow mi mo mn mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd menclose "
    "mpadded mphantom mstyle mmultiscripts mprescripts"
)
TAGS = {*TEXT_TAGS.split(), *ALLOWED_TAGS.split(), *MATH_TAGS.split()}
_SPACING = "lspace rspace stretchy form fence minsize maxsize symmetric largeop movablelimits"
SPACING = set(_SPACING.split())
SCROLLING = {"tabindex", "role", "aria-label"}
ATTRIBUTES = {
    "a": {"href", "id", "class"},
    "ol": {"start", "dir"},
    "ul": {"dir"},
    "blockquote": {"dir"},
    "li": {"id", "class"},
    "details": {"open"},
    "section": {"class"},
    "sup": {"class"},
    "span": {"class", "tabindex"},
    "div": {"class", "dir", *SCROLLING},
    "pre": {"class", *SCROLLING},
    "code": {"dir"},
    "h3": {"class"},
    "th": {"style", "dir"},
    "td": {"style", "dir"},
    "math": {"display"},
    "mo": SPACING,
    "mi": {"mathvariant"},
    "mspace": {"width"},
    "mfrac": {"displaystyle", "linethickness"},
    "mover": {"accent"},
    "munder": {"accentunder"},
    "mpadded": {"width", "height", "depth", "lspace", "voffset"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtable": {"displaystyle", "scriptlevel"},
    "mrow": {"class", "displaystyle", "scriptlevel", "style"},
    "mtd": {"style"},
    "menclose": {"notation"},
}
_STYLES = "text-align color border-top border-right border-left border-bottom padding-right padding-left"
STYLES = set(_STYLES.split())


class AnswerRenderer:
    """Renders the answers of one file, in order."""

    def __init__(self, words: Texts, budget: TimeBudget | None = None, formulas: Formulas | None = None) -> None:
        self._budget, self._formulas = budget, formulas or FormulasHere()
        self._count = 0
        self._markdown = MarkdownIt("js-default", {"linkify": True, "typographer": False, "breaks": True})
        emphasis(self._markdown)
        bounds(self._markdown)
        latex_marks(self._markdown, self._formulas.html)
        html_tags(self._markdown)
        gfm(self._markdown)
        self._markdown.core.ruler.push("headings", _level_headings)
        self._markdown.add_render_rule("image", _images_as_links(words))
        self._markdown.add_render_rule("fence", _code_in(words))
        self._markdown.add_render_rule("code_block", _code_in(words))
        self._markdown.add_render_rule("table_open", _tables(words))
        self._markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")

    def html(self, text: str) -> str:
        is_late = self._budget is not None and self._budget.is_over
        if is_late or not is_readable(text):
            return plain(text)
        self._formulas.begin_answer()
        self._count += 1  # makes the names of each answer's footnotes unique
        return nh3.clean(
            self._markdown.render(text, {"docId": str(self._count)}),
            tags=TAGS,
            attributes=ATTRIBUTES,
            url_schemes=SCHEMES,
            link_rel="noopener noreferrer nofollow",
            filter_style_properties=STYLES,
        )


def _images_as_links(words: Texts) -> Callable[..., str]:
    """A link in place of each image: fetching an image would reveal that the file is being read."""

    def draw(_: RendererHTML, tokens: Sequence[Token], index: int, *__: Any) -> str:
        address = str(tokens[index].attrGet("src") or "")
        text = words("turn_image", text=tokens[index].content or address)
        if not is_followed(address):
            return escape(text)
        return f'<a href="{escape(address)}">{escape(text)}</a>'

    return draw


def _scrolls(name: str) -> str:
    """Attributes that make a wide part scrollable by keyboard, and give it a name for screen readers."""
    return f' tabindex="0" role="group" aria-label="{escape(name)}"'


def _tables(words: Texts) -> Callable[..., str]:
    def draw(_: RendererHTML, tokens: Sequence[Token], index: int, *__: Any) -> str:
        direction = tokens[index].meta.get("direction")
        named = f' dir="{direction}"' if direction else ""
        return f'<div class="table"{named}{_scrolls(words("turn_table"))}><table>'

    return draw


def _code_in(words: Texts) -> Callable[..., str]:
    def draw(_: RendererHTML, tokens: Sequence[Token], index: int, *__: Any) -> str:
        language = tokens[index].info.split(maxsplit=1)[0][:30] if tokens[index].info.strip() else ""
        head = f'<div class="code-head">{escape(language)}</div>' if language else ""
        name = words("turn_code_language", language=language) if language else words("turn_code")
        text = escape(tokens[index].content)
        return f'<div class="code">{head}<pre{_scrolls(name)}><code dir="ltr">{text}</code></pre></div>\n'

    return draw


def _level_headings(state: StateCore) -> None:
    """Make all headings one level lower than the turn's own; the class sets their size."""
    for token in state.tokens:
        if token.type == "heading_open":
            token.attrJoin("class", f"level-{token.tag[1]}")
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h3"
