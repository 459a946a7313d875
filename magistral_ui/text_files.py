"""Reads the text files that operators write, as their editors save them; it does not know what is in them."""

import codecs
from pathlib import Path

from magistral_ui.errors import BadSetting

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(file: Path) -> str:
    """UTF-8, or what the file's byte order mark says. BadSetting for anything else, and for what cannot be read.

    An older 8-bit encoding is refused: which one it is cannot be seen, and a password that is read wrongly lets nobody in.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadSetting("file_not_read", file=str(file), reason=error.strerror or str(error)) from error
    try:
        read = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise BadSetting("file_not_text", file=str(file)) from error
    if "\0" in read:
        raise BadSetting("file_not_text", file=str(file))
    return read


def _encoding(data: bytes) -> str:
    for mark, name in MARKS:
        if data.startswith(mark):
            return name
    # Without a mark, UTF-16 gives itself away by the halves of its first, surely Latin, sign.
    if data[:1] != b"\0" and data[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if data[:1] == b"\0" and data[1:2] != b"\0" else "utf-8"
