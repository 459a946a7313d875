"""Says, for the doctor, whether the Hugging Face Hub can be reached from here and takes the token; it downloads nothing."""

import datetime
import re
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from magistral_ui.environment import ProxyUnusable, check_proxies, proxy_for
from magistral_ui.errors import Message, causes

DEFAULT = "https://huggingface.co"
TIMEOUT = 8.0
REFUSED = (401, 403)
NOT_VALID_TODAY = (9, 10)
"""OpenSSL's codes for certificates that are not valid yet, and no longer."""


def hub_facts() -> Iterator[dict[str, Any]]:
    yield {"stage": "huggingface_hub"}
    from huggingface_hub import constants, get_token

    endpoint = constants.ENDPOINT
    token = get_token()
    yield {"offline": constants.HF_HUB_OFFLINE, "custom": endpoint.rstrip("/") != DEFAULT}
    yield {"token": "unknown" if token else "none"}
    if not _is_address(endpoint):
        yield _told(Message("doctor_endpoint"))
        return
    if token and re.fullmatch("[!-~]+", token) is None:  # no header can hold it
        yield {"token": "refused"}
        yield _told(Message("token_refused", {"host": endpoint}))
        return
    try:
        check_proxies()
        yield {"proxy": bool(proxy_for(endpoint))}
    except ProxyUnusable as error:
        yield _told(Message("proxy_unusable", {"name": error.name}))
        return
    if not constants.HF_HUB_OFFLINE:
        yield {"stage": "network"}
        yield from _asked(endpoint, token)


def _asked(endpoint: str, token: str | None) -> Iterator[dict[str, Any]]:
    """What the Hub answers to the cheapest question, with the token if there is one."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # from httpx or httpx2, by version
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    began = time.monotonic()
    try:
        url = f"{endpoint}/api/whoami-v2" if token else f"{endpoint}/api/models?limit=1"
        response = get_session().get(url, headers=build_hf_headers(token=token or False), timeout=TIMEOUT)
    except (HTTPError, OSError) as error:
        refused = next((each for each in causes(error) if isinstance(each, ssl.SSLCertVerificationError)), None)
        if refused is not None:
            yield _told(_of_certificate(refused, endpoint))
        else:
            yield _told(Message("doctor_hub_unreachable", {"host": endpoint}))
        return
    yield {"milliseconds": round(1_000 * (time.monotonic() - began))}
    if token and response.status_code in REFUSED:
        yield {"token": "refused"}
        yield _told(Message("token_refused", {"host": endpoint}))
    elif token and response.status_code == 200:
        yield {"token": "accepted"}
    elif response.status_code >= 500 or response.status_code == 404:
        yield _told(Message("doctor_hub_failed", {"host": endpoint, "status": response.status_code}))


def _of_certificate(refused: ssl.SSLCertVerificationError, endpoint: str) -> Message:
    if getattr(refused, "verify_code", 0) in NOT_VALID_TODAY:
        today = datetime.datetime.now().astimezone().date().isoformat()
        return Message("doctor_clock", {"host": endpoint, "date": today})
    return Message("hub_certificate", {"host": endpoint})


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _told(message: Message) -> dict[str, Any]:
    return {"problem": [message.key, dict(message.values)]}
