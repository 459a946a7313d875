"""The OAuth login with Hugging Face on a Space: reads who signed in from the cookie of Gradio's own login; it admits nobody.

Gradio serves /login/huggingface and /login/callback if the page has a LoginButton; its signing key is derived from the secret
that the Hub gives a Space with `hf_oauth: true` (gradio 6.31, oauth.py).
"""

import base64
import json
import time
from collections.abc import Mapping

from cachetools import LRUCache
from starlette.datastructures import Headers
from starlette.types import Scope

from magistral_ui.client import hashed
from magistral_ui.errors import BadSetting
from magistral_ui.web.client_address import cookies
from magistral_ui.web.exposure import Exposure
from magistral_ui.web.login_watch import ActiveLogin
from magistral_ui.web.passwords import canonical, login_of

AUTH_CHOICE = "huggingface"
OAUTH_COOKIE, MAX_COOKIE_LENGTH = "session", 8_192
MAX_ENDED = 10_000
MAX_LOGIN_SECONDS = 14 * 24 * 3600
"""Seconds for which such a cookie is accepted, as in Gradio."""


class HuggingFaceLogin:
    """Reads and ends logins with Hugging Face, the only OAuth provider."""

    def __init__(self, secret: str, admins: frozenset[str] = frozenset()) -> None:
        """`secret` is the Space's OAUTH_CLIENT_SECRET; `admins` are canonical names."""
        from itsdangerous import TimestampSigner

        self._admins = admins
        self._ended: LRUCache[str, None] = LRUCache(MAX_ENDED)
        self._signer = TimestampSigner(hashed(secret + "-v4"))

    def active_login(self, scope: Scope) -> ActiveLogin | None:
        """The login of whoever made this request; None if there is none, or it has expired or is not Gradio's.

        A person can change their name on the Hub, and somebody else can take the old one; the number (`sub`) never changes.
        """
        from itsdangerous import BadSignature

        values = (value for value in cookies(Headers(scope=scope), OAUTH_COOKIE) if len(value) <= MAX_COOKIE_LENGTH)
        signed = next(values, "").strip('"')
        try:
            session = json.loads(base64.b64decode(self._signer.unsign(signed, max_age=MAX_LOGIN_SECONDS)))
            info = session["oauth_info"]
            until, user = float(info.get("expires_at") or 0), info["userinfo"]
            name, number = str(user["preferred_username"]), user.get("sub")
        except (AttributeError, BadSignature, KeyError, TypeError, ValueError):
            return None
        login = login_of("huggingface", str(number)) if number else login_of("huggingface name", canonical(name))
        # Gradio signs the cookie again with each response; its content stays the same as long as the login.
        key = hashed(json.dumps(info, sort_keys=True))
        admin = canonical(name) in self._admins
        found = ActiveLogin(login, key, admin, lambda: 0.0 if key in self._ended else until - time.time())
        return found if name and found.remaining_seconds > 0 else None

    def end(self, login: ActiveLogin) -> None:
        """Stop accepting this login, even if someone has kept its cookie."""
        self._ended[login.key] = None


def hugging_face_login(
    choice: str | None, exposure: Exposure, environment: Mapping[str, str], admins: frozenset[str] = frozenset()
) -> HuggingFaceLogin | None:
    """The login for `--auth huggingface`. Raises BadSetting except on a Space with `hf_oauth`."""
    if choice != AUTH_CHOICE:
        return None
    secret = environment.get("OAUTH_CLIENT_SECRET")
    if exposure.reach != "space" or not secret:
        raise BadSetting("auth_needs_space")
    return HuggingFaceLogin(secret, admins)
