"""Takes out of a text what tells who somebody is: home folders, user names in paths, tokens, passwords in addresses."""

import getpass
import os
import re
from pathlib import Path

TOKEN = re.compile(r"\b(?:hf|api|sk|ghp)_[A-Za-z0-9]{8,}\b|\bsk-[A-Za-z0-9-]{8,}\b|\beyJ[\w-]+\.[\w.-]+")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|_KEY$|_AUTH$")
"""Variables whose values are nobody's business."""
MIN_SECRET = 6
"""Characters; a shorter value may be a word of the text."""
CREDENTIALS = re.compile(r"(?<=://)[^\s'\"]+@")
"""Up to the last @, since a password may hold one, or a slash."""
HOMES = re.compile(r"(?:/home/|/Users/)[^/\s'\":]+|[A-Za-z]:\\+Users\\+[^\\'\":,;]+")
ROOT = r"(?:/|[A-Za-z]:\\|~[/\\]|\\\\)"
QUOTED = re.compile(
    rf"(?<=')(?:{ROOT}[^'\n]+|[^'\n]*[/\\][^'\n]*)(?=')|(?<=\")(?:{ROOT}[^\"\n]+|[^\"\n]*[/\\][^\"\n]*)(?=\")"
)
"""A path in quotation marks, whatever is in it."""
PATH = re.compile(rf"(?<![\w.~/:<…\\]){ROOT}[^\s'\",:;()]*[\w/\\][^\s'\",:;()]*")
NAMES_WITH_BLANKS = re.compile(r"(?<=<path>)(?:(?: [^\s'\",:;()/\\]+)*? [^\s'\",:;()/\\]+[/\\][^\s'\",:;()]*)+")
"""What is left of a path with blanks: words up to one with a separator inside."""
SITE = re.compile(
    r"\b(?P<scheme>\w+://)(?!(?:[\w-]+\.)*(?:huggingface\.co|pytorch\.org|github\.com|github\.io|nvidia\.com)(?:[/:]|$))[^\s'\",;)]+"
)
"""An address that is not one of those that remedies name."""
SYSTEM = ("/usr/", "/lib/", "/lib64/", "/opt/", "/etc/", "/proc/", "/sys/", "/dev/", "C:\\Windows", "C:\\Program Files")
"""How paths begin that nobody chose."""
ADDRESS = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")


def shown_path(path: str | Path) -> str:
    """A path with `~` for the home folder."""
    return without_names(str(path))


def without_names(text: str) -> str:
    """`text` with `~` for homes, and without tokens, passwords and mail addresses."""
    for home in sorted(_homes(), key=len, reverse=True):
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    text = HOMES.sub("~", text)
    for value in _secrets():
        text = text.replace(value, "<token>")
    text = CREDENTIALS.sub("", TOKEN.sub("<token>", text))
    return _without_user(ADDRESS.sub("<address>", text))


def for_issue(text: str) -> str:
    """`text` in one line for others to read: also without paths but those of the system and of libraries."""
    text = SITE.sub(r"\g<scheme><address>", without_names(text))
    text = PATH.sub(_shown_to_others, QUOTED.sub(_shown_to_others, text))
    return NAMES_WITH_BLANKS.sub("", text).replace("\n", " ")


def _shown_to_others(found: re.Match[str]) -> str:
    path = found[0]
    _, separator, library = path.rpartition("site-packages")
    if separator:
        return f"…/site-packages{library}"
    return path if path.startswith(SYSTEM) else "<path>"


def _secrets() -> list[str]:
    named = (value.strip() for name, value in os.environ.items() if SECRET.search(name.upper()))
    return sorted((value for value in named if len(value) >= MIN_SECRET), key=len, reverse=True)


def _homes() -> set[str]:
    named = {os.path.expanduser("~"), os.environ.get("HOME", ""), os.environ.get("USERPROFILE", "")}
    homes = {each.rstrip("/\\") for each in named if each}
    homes |= {os.path.realpath(each) for each in homes}
    return {each for each in homes if len(each) > 1 and each != "~"}


def _without_user(text: str) -> str:
    """Without the user's name as a part of a path: caches outside the home are often named so."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user that the system does not know
        return text
    return (
        re.sub(rf"(?<=[/\\]){re.escape(name)}(?![\w.-])", "<user>", text) if len(name) > 1 and name != "root" else text
    )
