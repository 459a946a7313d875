"""Links the web addresses that stand bare in a text, as the page's linkify-it does, looking at each but once."""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

MAX_URL_LENGTH = 2_000
"""Characters of an address."""
SCHEME = re.compile(r"(?:^|[^a-z0-9.+-])(https?)$", re.IGNORECASE)


def addresses(markdown: MarkdownIt) -> None:
    """Let `markdown` link them; `linkify` has to be on."""
    assert markdown.linkify is not None
    markdown.linkify.set({"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    markdown.inline.ruler.at("linkify", _inline)


def _inline(state: StateInline, silent: bool) -> bool:
    # markdown-it's own rule looks through, and copies, all that came before and behind each address.
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
    address = str(link.url).rstrip("*")  # a mark of emphasis
    if not silent:
        state.pending = state.pending[: -len(scheme[1])]
        token = state.push("link_open", "a", 1)
        token.attrs, token.markup, token.info = {"href": state.md.normalizeLink(address)}, "linkify", "auto"
        state.push("text", "", 0).content = state.md.normalizeLinkText(address)
        token = state.push("link_close", "a", -1)
        token.markup, token.info = "linkify", "auto"
    state.pos = start + len(address)
    return True
