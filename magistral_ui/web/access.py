"""Turns the operator's choices about sharing into accounts, limits and admins, and announces them on the terminal."""

import json
import os
from pathlib import Path
from typing import Any

from magistral_ui.errors import BadSetting
from magistral_ui.i18n.texts import text
from magistral_ui.sessions.limits import MAX_LIMIT, SHARED, Limits
from magistral_ui.web.exposure import Exposure
from magistral_ui.web.hf_oauth import AUTH_CHOICE as HUGGING_FACE
from magistral_ui.web.passwords import MAX_PASSWORD_LENGTH, Passwords, canonical, make_password

MIN_PASSWORD_LENGTH, MIN_SHARED_PASSWORD_LENGTH = 8, 12
"""Characters of a password, for a page that only this machine reaches and for a shared one (OWASP ASVS 4.0.3, 2.1.1)."""

ADMIN_NAMES = "NAME[,NAME] (--auth NAME:PASSWORD|FILE)"
EXAMPLE = json.dumps({"max_tokens": 32768, "replies": 4})
MAX_DIGITS = 20
"""Digits of a number to read: more than any limit has."""


def limits_of(choice: str | None, exposure: Exposure) -> Limits:
    """The chosen limits: by name, or those for the exposure, overridden by a JSON file."""
    defaults = SHARED if exposure.shared else Limits()
    if choice is None:
        return defaults
    if choice in ("local", "shared"):
        return {"local": Limits(), "shared": SHARED}[choice]
    changes = _limits_in(Path(choice))
    try:
        return defaults.changed(changes)
    except LookupError as error:
        raise BadSetting("limits_unknown", value=choice, detail=str(error.args[0])) from error
    except ValueError as error:
        raise BadSetting("limits_not_sound", value=choice, detail=str(error), limit=MAX_LIMIT) from error


def _limits_in(file: Path) -> dict[str, Any]:

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place])]:
            raise BadSetting("limits_twice", value=str(file), detail=twice[0])
        return dict(pairs)

    def number(digits: str) -> int:
        return int(digits[:MAX_DIGITS])  # Python refuses to parse thousands of digits

    text, line, column = read_text(file, "limits_not_read"), 1, 1
    try:
        changes = json.loads(text, object_pairs_hook=once, parse_int=number)
        if isinstance(changes, dict):
            return changes
    except json.JSONDecodeError as error:
        line, column = error.lineno, error.colno
    except RecursionError:
        pass
    raise BadSetting("limits_no_object", value=str(file), line=line, column=column, example=EXAMPLE)


def passwords_of(choice: str | None, exposure: Exposure, no_password: bool) -> tuple[Passwords | None, str]:
    """The accounts, and the generated password, if any. A Space is open to whoever its owner allows to see it."""
    if choice == HUGGING_FACE:
        return Passwords({}), ""
    if choice is not None:
        return Passwords(
            read_accounts(choice, MIN_SHARED_PASSWORD_LENGTH if exposure.shared else MIN_PASSWORD_LENGTH)
        ), ""
    if no_password or not exposure.shared or exposure.reach == "space":
        return None, ""
    made = make_password()
    return Passwords({"": made}), made


def admins_of(choice: str | None) -> frozenset[str]:
    """The canonical names that `--admin` lists."""
    return frozenset(name for each in (choice or "").split(",") if (name := canonical(each)))


def check_admins(choice: str | None, passwords: Passwords | None) -> None:
    """BadSetting for a name of `--admin` that nobody can log in with: its models could never be managed on the page."""
    for name in filter(None, (choice or "").split(",")):
        if canonical(name) and not (passwords and passwords.knows(name)):
            raise BadSetting("bad_setting", name="--admin", value=name.strip(), expected=ADMIN_NAMES)


def read_accounts(choice: str, min_length: int = MIN_PASSWORD_LENGTH) -> dict[str, str]:
    """Passwords by name, from `name:password` or a file with one of these per line. Raises BadSetting for anything else."""
    file = Path(choice)
    named = os.path.exists(file)
    if named:
        lines = [line.strip() for line in read_text(file).splitlines()]
        pairs = [line for line in lines if line and not line.startswith("#")]
    else:
        pairs = [choice]
    accounts: dict[str, str] = {}
    known: dict[str, str] = {}
    for pair in pairs:
        name, colon, password = pair.partition(":")
        if not colon or not canonical(name):
            raise BadSetting("auth_file_not_sound" if named else "auth_not_sound", file=str(file) if named else "")
        if (alike := known.get(canonical(name))) is not None:
            raise BadSetting("auth_names_alike", name=name.strip(), other=alike)
        known[canonical(name)] = name.strip()
        if len(password.strip()) < min_length:
            raise BadSetting("password_too_short", name=name.strip(), limit=min_length)
        if len(password.strip()) > MAX_PASSWORD_LENGTH:
            raise BadSetting("password_too_long", name=name.strip(), limit=MAX_PASSWORD_LENGTH)
        accounts[name.strip()] = password.strip()
    if not accounts:
        raise BadSetting("auth_file_not_sound", file=str(file))
    return accounts


def announcement(url: str, exposure: Exposure, limits: Limits, passwords: Passwords | None, made: str) -> list[str]:
    """What the terminal tells the operator: the address, who can log in, and what is less strict than the defaults."""
    lines = [text("app_serving", url=url)]
    if made:
        lines.append(text("app_password", password=made))
    if passwords is not None and passwords.shortest < MIN_SHARED_PASSWORD_LENGTH:
        lines.append(text("app_password_short", limit=MIN_SHARED_PASSWORD_LENGTH))
    if exposure.shared and passwords is None and exposure.reach != "space":
        lines.append(text("app_no_password"))
    if exposure.shared and not limits.shared:
        lines.append(text("app_limits_local"))
    elif exposure.shared and limits != SHARED:
        lines.append(text("app_limits_changed"))
    return lines


def read_text(file: Path, unread: str = "file_not_read") -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, by its byte order mark or first bytes. Raises BadSetting otherwise.

    8-bit encodings are refused: they cannot be told apart, and a password that was decoded wrongly would let nobody in.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadSetting(unread, file=str(file), value=str(file), reason=error.strerror or str(error)) from error
    try:
        read = data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise BadSetting("file_not_text", file=str(file)) from error
    if "\0" in read:
        raise BadSetting("file_not_text", file=str(file))
    return read
