"""Lets emphasis begin and end next to scripts written without spaces between words; all else follows CommonMark.

ui/assets/emphasis.js has the same rule.
"""

import re
import unicodedata
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline.state_inline import Scanned, StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType

from magistral_ui.export.bounds import spend_steps, spend_token

UNSPACED = re.compile(
    "[\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u19e0-\u19ff\u2e80-\u2fdf\u2ff0-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\ua9e0-\ua9ff"
    "\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff\ufe10-\ufe1f\ufe30-\ufe4f\uff01-\uffee\U0001b000-\U0001b16f\U00020000-\U000323af]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese, Korean and Yi, with their punctuation and full-width forms."""
SPACE = re.compile("[\t-\r \u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]")
JOINER = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Characters that only change how the one before them looks."""


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
    """Make `markdown` read emphasis this way; to be called before any other rule is added."""
    markdown.inline = _Inline()


def _before(text: str, at: int) -> str:
    """The character before `at`; a space at the beginning."""
    while at > 0:
        if not JOINER.match(text[at - 1]):
            return text[at - 1]
        at -= 1
    return " "


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
