"""Knows who signed in to Hugging Face on a Space, by the cookie that Gradio's own login sets; it lets nobody in itself.

Gradio serves /login/huggingface and /login/callback where the page has a LoginButton; its key for signing follows from the secret
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
"""Seconds for which such a cookie is accepted, as Gradio has it."""


class HuggingFaceLogin:
    """Reads the login's cookie."""

    def __init__(self, secret: str, admins: frozenset[str] = frozenset()) -> None:
        """`secret` is the Space's OAUTH_CLIENT_SECRET; `admins` are canonical names."""
        from itsdangerous import TimestampSigner

        self._admins = admins
        self._ended: LRUCache[str, None] = LRUCache(MAX_ENDED)
        self._signer = TimestampSigner(hashed(secret + "-v4"))

    def active_login(self, scope: Scope) -> ActiveLogin | None:
        """The login of who made this request; None without one, or where it has expired or was signed by somebody else.

        A person can take another name at the Hub, and somebody else that one; by its number (`sub`) the Hub always knows them.
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
        # Gradio signs the cookie anew with each answer; what is in it stays for as long as the login.
        key = hashed(json.dumps(info, sort_keys=True))
        admin = canonical(name) in self._admins
        found = ActiveLogin(login, key, admin, lambda: 0.0 if key in self._ended else until - time.time())
        return found if name and found.remaining_seconds > 0 else None

    def end(self, login: ActiveLogin) -> None:
        """Accept this login no more, whoever has kept its cookie."""
        self._ended[login.key] = None


def hugging_face_login(
    choice: str | None, exposure: Exposure, environment: Mapping[str, str], admins: frozenset[str] = frozenset()
) -> HuggingFaceLogin | None:
    """The login for `--auth huggingface`; BadSetting anywhere but on a Space that may offer it."""
    if choice != AUTH_CHOICE:
        return None
    secret = environment.get("OAUTH_CLIENT_SECRET")
    if exposure.reach != "space" or not secret:
        raise BadSetting("auth_needs_space")
    return HuggingFaceLogin(secret, admins)
