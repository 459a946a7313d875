"""Knows who signed in to Hugging Face on a Space, by the cookie that Gradio's own login leaves; it lets nobody in itself.

Gradio serves /login/huggingface and /login/callback where the page has a LoginButton; what it signs with follows from the secret
that the Hub gives a Space with `hf_oauth: true` (gradio 6.31, oauth.py).
"""

import base64
import hashlib
import json
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Scope

from magistral_ui.errors import BadSetting
from magistral_ui.ui.doors.cookies import cookies
from magistral_ui.ui.doors.exposure import Exposure

CHOICE = "huggingface"
"""How it is asked for: `--auth huggingface`."""
START, BACK = "/login/huggingface", "/login/callback"
COOKIE, COOKIE_LENGTH = "session", 8_192
LONGEST = 14 * 24 * 3600
"""Seconds for which such a cookie is believed, as Gradio has it."""


class HuggingFace:
    """Reads the login's cookie."""

    def __init__(self, secret: str) -> None:
        """`secret` is the Space's OAUTH_CLIENT_SECRET."""
        from itsdangerous import TimestampSigner

        self._signer = TimestampSigner(hashlib.sha256((secret + "-v4").encode()).hexdigest())

    def name(self, scope: Scope) -> str | None:
        """Who made this request; None without a login, or where it is over or was not ours."""
        from itsdangerous import BadSignature

        found = (value for value in cookies(Headers(scope=scope), COOKIE) if len(value) <= COOKIE_LENGTH)
        signed = next(found, "").strip('"')
        try:
            session = json.loads(base64.b64decode(self._signer.unsign(signed, max_age=LONGEST)))
            info = session["oauth_info"]
            if float(info.get("expires_at") or 0) < time.time():
                return None
            return str(info["userinfo"]["preferred_username"])
        except (BadSignature, KeyError, TypeError, ValueError):
            return None


def hugging_face(choice: str | None, exposure: Exposure, environment: Mapping[str, str]) -> HuggingFace | None:
    """The login that was asked for by `--auth huggingface`; BadSetting anywhere but on a Space that may offer it."""
    if choice != CHOICE:
        return None
    secret = environment.get("OAUTH_CLIENT_SECRET")
    if exposure.reach != "space" or not secret:
        raise BadSetting("auth_needs_space")
    return HuggingFace(secret)
