"""A file name from a title: one that Windows, macOS and Linux all take, in the title's own letters; it writes no file."""

import re
import unicodedata

MAX_NAME_LENGTH = 80
"""Characters of a name without its ending."""
MAX_NAME_BYTES = 200
"""Of the name in UTF-8; file systems end at 255, and browsers add numbers."""
SEPARATING = re.compile(r"[/\\:|]+")
FORBIDDEN = re.compile(r'[<>"?*]')
DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices, whatever their ending."""
JOINERS = "\u200c\u200d"
"""Invisible, but Persian and families of emoji are not written without them."""


def file_name(title: str, ending: str, fallback: str) -> str:
    """Such as `A sum.json` for the title “A sum” and the ending `json`; `fallback` where nothing of the title is left."""
    name = _plain(title) or _plain(fallback) or "_"
    return f"_{name}.{ending}" if DEVICE.match(name) else f"{name}.{ending}"


def _plain(title: str) -> str:
    text = FORBIDDEN.sub("", SEPARATING.sub("-", unicodedata.normalize("NFC", title)))
    text = "".join(each for each in text if _is_written(each))
    text = " ".join(text.split())[:MAX_NAME_LENGTH]
    text = text.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    # A leading dot hides a file, a leading hyphen is read as a flag, and Windows drops dots and spaces at the end.
    return text.lstrip(".- " + JOINERS).rstrip(". " + JOINERS)


def _is_written(character: str) -> bool:
    """False for control characters, marks that turn the direction, half surrogate pairs, and what has no meaning."""
    return character.isspace() or character in JOINERS or unicodedata.category(character)[0] != "C"
