"""The names by which people come in: in one form, however they are typed, and as what is kept of them; it knows no passwords."""

import hashlib
import unicodedata

LONGEST = 2_000
"""Characters of a name that has other forms: to find the one of many marks behind each other takes the square of their number,
and of these some milliseconds."""


def canonical(name: str) -> str:
    """The one form of a name: without case, and of letters that can be written in several ways (NFC, NFD, full width) one.

    One that is too long for a name stands as it is.
    """
    if len(name) > LONGEST:
        return name
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def login_of(realm: str, name: str) -> str:
    """What stands for a person wherever something is theirs; those of two realms are never the same, whatever their names are."""
    whole = f"{realm}\0{name}".encode("utf-8", "surrogatepass")
    return "name-" + hashlib.sha256(whole).hexdigest()
