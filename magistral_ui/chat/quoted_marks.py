"""Tells a mark that ends reasoning from one that is only mentioned, by the text around it; it does not search for marks.

A model whose prompt has opened the reasoning ends it with a bare `</think>`; one that explains the tag writes the same text.
The first comes at the end of a line or after a whole sentence, the second in code, in quotes, or within a sentence.
"""

import re
import unicodedata

TAIL_CHARACTERS = 64
"""Characters of a line to keep: only the text right before the mark matters."""
FENCE = re.compile(r"\s*(?:(?:[-*+>]|\d{1,9}[.)])\s+)*(`{3,}|~{3,})")
"""What opens or closes a code block, also within lists and quotations."""
INDENTED = re.compile(r"(?: {4}|\t)\s*")
ITEM = re.compile(r"\s*(?:[-*+>|]|#{1,6}|\d{1,9}[.)])\s+")
"""The start of a list item, a heading, a quotation or a table row."""
SENTENCE_ENDS = frozenset(".!?…。！？।؟\"'”’»)]}）】」』*_`$")
OPENERS = frozenset("“‘«„‹「『（【([{<")
FOLLOWERS = frozenset(",;.:?!)]}”’»›」』）】、，。；：？！、…")
"""Characters that follow a word directly, and do not begin an answer."""
COLONS, DASHES = frozenset(":："), frozenset("–—")
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Thai, Lao, Burmese and Khmer, which do not put spaces between words either."""


class MarkContext:
    """The context of a mark: what the text so far says about whether a mark after it counts. `feed` takes linear time."""

    def __init__(self) -> None:
        self._fence = ""
        self._line = ""  # its last characters
        self._start = ""  # its first ones
        self._blank = True
        self._ticks = 0  # runs of backticks in the line
        self._quotes = 0

    def feed(self, text: str) -> None:
        first, *others = text.split("\n")
        self._grow(first)
        for line in others:
            self._end_line()
            self._grow(line)

    @property
    def in_code(self) -> bool:
        """Whether what follows is code, in a block or within a line."""
        return bool(self._fence) or self._ticks % 2 == 1

    @property
    def at_line_start(self) -> bool:
        return self._blank

    def quotes(self, after: str, final: bool) -> bool | None:
        """Whether a mark here that is followed by `after` is only mentioned; None if more text is needed to decide."""
        if self.in_code:
            return True
        rest = after.lstrip(" \t")
        if not rest and not final:
            return None
        if self._blank:
            return bool(INDENTED.fullmatch(self._start)) or _continues(after, rest)
        before = self._line.rstrip(" \t")
        if before != self._line:
            return self._within_sentence(before, after, rest, final)
        if before[-1] in COLONS and not after.strip():  # it may be the end
            return final or None
        if before[-1] == ">" and after == "<" and not final:
            return None
        return self._is_enclosed(before, after)

    def introduces(self, after: str) -> bool:
        """Whether a mark between a colon and the end of the line begins an example."""
        return self._line.rstrip()[-1:] in COLONS and after.lstrip(" \t")[:1] in ("\r", "\n")

    def _within_sentence(self, before: str, after: str, rest: str, final: bool) -> bool | None:
        """`quotes` for a mark after a space."""
        if before[-1] in SENTENCE_ENDS and not ITEM.fullmatch(self._start):
            return _continues(after, rest) or after[:1] in FOLLOWERS
        if not rest or rest[0] not in "\r\n" or ITEM.match(self._start) or before[-1] == "|":
            return True
        # At the end of a line it closes the reasoning, unless the sentence continues in the next line.
        end = rest.lstrip("\r\n \t")
        breaks = rest[: len(rest) - len(end)].count("\n")
        if breaks < 2 and not end:
            return True if final else None
        return breaks < 2 and end[0].islower()

    def _is_enclosed(self, before: str, after: str) -> bool:
        """`quotes` for a mark right after another character."""
        last, following = before[-1], after[:1]
        if following in FOLLOWERS and following:
            return True
        if last in OPENERS or (last == "\\" and before[-2:-1] != last):
            return True
        if last == ">" and after.startswith("</"):
            return True
        if last in DASHES:
            return following != "" and following in DASHES
        if last == '"' or last == "'":
            return following == last and (last == "'" or self._quotes % 2 == 1)
        if last in "*_~|":
            word = before.rstrip("*_~|")
            return following != "" and following in "*_~|" and (not word or word[-1].isspace())
        return _is_wide(last) and _is_wide(following)

    def _grow(self, piece: str) -> None:
        if not piece:
            return
        joined = self._line[-1:] == "`" and piece.startswith("`")
        self._ticks += len(re.findall("`+", piece)) - joined
        self._quotes += piece.count('"')
        self._blank = self._blank and not piece.strip()
        self._line = (self._line + piece)[-TAIL_CHARACTERS:]
        if len(self._start) < TAIL_CHARACTERS:
            self._start = (self._start + piece)[:TAIL_CHARACTERS]

    def _end_line(self) -> None:
        found = FENCE.match(self._start)
        if found and not self._fence:
            self._fence = found[1] if found[1][0] == "~" or self._ticks == 1 else ""
        elif found and found[1].startswith(self._fence) and not self._start[found.end() :].strip():
            self._fence = ""
        self._line = self._start = ""
        self._blank, self._ticks, self._quotes = True, 0, 0


def _continues(after: str, rest: str) -> bool:
    """Whether a sentence or a table row continues after the mark, as in “</think> is a tag”."""
    return after != rest and (rest[:1].islower() or rest[:1] == "|")


def _is_wide(character: str) -> bool:
    """Whether it belongs to a script without spaces between words."""
    if not character:
        return False
    wide = unicodedata.east_asian_width(character) in "WF" and character.isalpha()
    return wide or bool(UNSPACED.match(character))
