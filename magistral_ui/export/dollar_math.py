"""Tells a formula between dollar signs from prices, variables, cells and code, as ui/assets/dollar_math.js does."""

import re

from magistral_ui.export.gfm import UNSPACED

BLANK = re.compile("[\t-\r \u00a0\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
CONTINUES_WORD = re.compile(r"[\\^_]|\{\}")
"""How a formula right after a word begins: H$_2$O, 20$^\\circ$."""
NO_BEGINNING = re.compile(r'[/;,?&%#@)}"*]|:(?!=)|\.(?![0-9])|\|\^|\{[A-Za-z_][A-Za-z0-9_.()[\]!:?-]*\}(?![_^])')
"""What a formula never begins with."""
NO_END = re.compile(r'[:;,./=+\-*&<>@#?~([{"^_]\Z')
"""How a formula never ends before a word; there, the second dollar sign begins something, too."""
WORD_FOLLOWS = re.compile(r"[A-Za-z_{(]")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]+\Z")
ORDINAL = re.compile(r"(?:th|st|nd|rd|e?s)(?![A-Za-z])")
FOREIGN = re.compile(r"(?:^|[^\\])\\(?:[wdsbWDB](?![A-Za-z])|\.)|`|\*\*")
"""Regular expressions, and Markdown that is not LaTeX."""
CURRENCY = re.compile("[€£¥₹₽₩₺₫₴฿]")
"""Other currencies: a sign of prices, unless a formula contains a command."""
COMMAND = re.compile(r"\\[A-Za-z]{2,}")
POINT = re.compile("[，。；：！？、،؛]")
"""Punctuation that needs no space after it."""
FOREIGN_WORD = re.compile(r"[^\W\d_A-Za-z]{2}")
MAX_UNIT_LENGTH = 3
"""Letters: 5元."""
SIGN = re.compile(r"[\\^_=<>{}]")
WORDS = re.compile(r"(?:^|[\s,;:.!?(])([^\W\d_]{2,}|[^\W\d_]\.[^\W\d_])(?=$|[\s,;:.!?)])")
_WORDS = "mod gcd lcm max min log ln lg exp sin cos tan sec csc cot lim det dim sup inf arg deg div"
MATHEMATICAL = set(_WORDS.split())
DIGIT = re.compile("[0-9]")
BRACKET = re.compile(r"\\.|[{}()[\]|]", re.DOTALL)
SIZED = re.compile(r"\\(?:left|right|[bB]igg?|[lr]angle|[lr]floor|[lr]ceil|mid)")


def is_formula(text: str, start: int, stop: int) -> bool:
    """Whether the text between the dollar signs at `start` and `stop` is a formula."""
    content, before, after = text[start + 1 : stop], text[max(0, start - 1) : start], text[stop + 1 : stop + 2]
    # Pandoc's rule: "$5 and $10" are prices.
    if not content or BLANK.match(content[0]) or BLANK.match(content[-1]) or DIGIT.match(after):
        return False
    # US$5, 5$ a month, ^a$|^b$, $A$1.
    if re.match("[A-Za-z0-9]", before) and not CONTINUES_WORD.match(content):
        return False
    if WORD_FOLLOWS.match(after):
        if NO_END.search(content) or UNSPACED.match(content[-1]) or content[0] + after in ("((", "{{"):
            return False
        if NAME.match(content) and not ORDINAL.match(text, stop + 1):
            return False
    if len(content) == 1:
        return True
    if CURRENCY.search(content) and not COMMAND.search(content):
        return False
    return (
        not (NO_BEGINNING.match(content) or FOREIGN.search(content))
        and _is_balanced(content)
        and not _is_prose(content)
    )


def _is_balanced(content: str) -> bool:
    """Whether as many brackets close as open: [0, 1) is an interval, "5 (about 4" is not."""
    braces = brackets = bars = 0
    for match in BRACKET.finditer(content):
        sign = match[0]
        braces += (sign == "{") - (sign == "}")
        brackets += (sign in "([") - (sign in ")]")
        bars += sign == "|"
        if braces < 0:
            return False
    if braces:
        return False
    if content[0] == "|" and bars % 2 and not re.search(r">|\\rangle|\\right", content):
        return False
    return not brackets or bool(SIZED.search(content))


def _is_prose(content: str) -> bool:
    """Whether the text is words between two prices."""
    if SIGN.search(content):
        return False
    if DIGIT.match(content[0]) and len(UNSPACED.findall(content)) > MAX_UNIT_LENGTH:
        return True
    words = [word for word in WORDS.findall(content) if word not in MATHEMATICAL]
    first, last = bool(DIGIT.match(content[0])), bool(DIGIT.match(content[-1]))
    if (first and last and words) or (((first and last) or POINT.search(content)) and FOREIGN_WORD.search(content)):
        return True
    return (len(words) > 1 and (first or last or bool(re.search(r"[.,;:!?]\s", content)))) or len(words) > 3
