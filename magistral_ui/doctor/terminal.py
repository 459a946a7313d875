"""How the doctor writes on this terminal: its language, width, colours and signs; it does not know what."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TextIO

from magistral_ui.i18n.languages import LANGUAGES, OTHER_NAMES
from magistral_ui.i18n.texts import DEFAULT_LANGUAGE, DOCTOR_PREFIX, translated

VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")
"""The variables that say a terminal's language, the first that is set counts; `LANGUAGE` may name others."""
MIN_WIDTH, MAX_WIDTH = 40, 120
NO_BREAK = "\N{NO-BREAK SPACE}"
"""A blank at which no line ends; it is written as an ordinary one, so that commands can be copied."""
CLOSING = "。、，．）」』】〉》：；！？"
"""Wide signs with which no line begins."""
OPENING = "（「『【〈《"
"""Those with which none ends."""
SIGNS = {"ok": "✓", "note": "•", "fault": "✗", "unchecked": "?"}
PLAIN_SIGNS = {"ok": "+", "note": "*", "fault": "X", "unchecked": "?"}
PLAIN = {
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "–": "-",
    "…": "...",
    "·": "|",
    "×": "x",
    "≠": "!=",
}
"""What is written for signs that an encoding lacks."""
COLOURS = {"ok": "32", "note": "36", "fault": "31;1", "unchecked": "33"}


def language_of(environment: Mapping[str, str], encoding: str | None) -> str:
    """The code of the terminal's language, if there are texts in it and the terminal can show them; English otherwise."""
    wanted = next((environment[name] for name in VARIABLES if environment.get(name)), "") or _of_windows()
    names = [wanted]
    if wanted.partition(".")[0] not in ("", "C", "POSIX"):
        names = [*filter(None, environment.get("LANGUAGE", "").split(":")), wanted]
    for name in names:
        code = name.replace("-", "_").partition(".")[0].partition("_")[0].lower()
        code = OTHER_NAMES.get(code, code)
        if code in LANGUAGES and _can_show(_letters(code), encoding):
            return code
    return DEFAULT_LANGUAGE


def _of_windows() -> str:
    """Windows has no such variables, but a language of its user interface."""
    if sys.platform != "win32":
        return ""
    import ctypes
    import locale

    return locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")


def _letters(code: str) -> str:
    """All that the doctor's texts in that language are written with, but punctuation."""
    texts = (str(text) for key, text in translated(code).items() if key.startswith(DOCTOR_PREFIX))
    return "".join({sign for text in texts for sign in text if sign.isalpha()})


def _can_show(text: str, encoding: str | None) -> bool:
    with suppress(UnicodeError, LookupError):
        text.encode(encoding or "ascii")
        return True
    return False


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a stream can show."""

    width: int
    colours: bool
    signs: Mapping[str, str]
    plain: Mapping[int, str] = field(default_factory=dict)
    """Signs that its encoding lacks, and what is written for them."""

    @staticmethod
    def of(stream: TextIO, environment: Mapping[str, str]) -> "Terminal":
        width = min(MAX_WIDTH, max(MIN_WIDTH, shutil.get_terminal_size((100, 24)).columns))
        is_one = stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        known = os.name != "nt" or bool(environment.get("WT_SESSION") or environment.get("ANSICON"))
        signs = SIGNS if _can_show("".join(SIGNS.values()), stream.encoding) else PLAIN_SIGNS
        lacking = {ord(sign): plain for sign, plain in PLAIN.items() if not _can_show(sign, stream.encoding)}
        return Terminal(width, is_one and known, signs, lacking)

    def sign(self, state: str) -> str:
        shown = self.signs[state]
        return f"\x1b[{COLOURS[state]}m{shown}\x1b[0m" if self.colours else shown

    def wrapped(self, text: str, indent: int) -> list[str]:
        """`text` in lines that fit behind `indent` columns; words that are longer are left whole, to be copied."""
        room, lines, used = max(20, self.width - indent), [""], 0
        for word in _words(text):
            size = columns(word)
            if lines[-1] and used + size > room and not word.isspace():
                lines[-1] = lines[-1].rstrip()
                lines.append("")
                used = 0
            if lines[-1] or not word.isspace():
                lines[-1] += word
                used += size
        return [line.replace(NO_BREAK, " ").rstrip() for line in lines]


def _words(text: str) -> Iterator[str]:
    """Words and the blanks between them; in Chinese and Japanese a line may end after any sign, but not before a full stop."""
    word = ""
    for sign in text:
        is_blank = sign.isspace() and sign != NO_BREAK
        is_kept = sign in CLOSING or word[-1:] in OPENING
        is_part = bool(word) and not is_blank and (is_kept or not (_is_wide(sign) or _is_wide(word[-1])))
        if word and not is_part:
            yield word
            word = ""
        if is_blank:
            yield sign
        else:
            word += sign
    if word:
        yield word


def _is_wide(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in "WF"


def columns(text: str) -> int:
    """How wide a terminal shows it."""
    wide = sum(map(_is_wide, text))
    return len(text) + wide - sum(unicodedata.combining(sign) > 0 for sign in text)
