"""Opens Gradio's share link to a page that is served already; what comes through it passes the same doors."""

import contextlib
import secrets

import httpx
from gradio import networking
from gradio.exceptions import ChecksumMismatchError, ShareCertificateWriteError

from magistral_ui.errors import ServeError
from magistral_ui.proxies import ProxyUnusable, check_proxies
from magistral_ui.web.client_address import PROBE_HEADER
from magistral_ui.web.exposure import Exposure, seen_by

FORGED = "192.0.2.1"
"""An address that nobody has (RFC 5737)."""
PROBE_TIMEOUT = 10.0


def open_tunnel(host: str, port: int, token: str) -> str:
    """The public address. ServeError, with the reason, where there is none.

    Not `launch(share=True)`: the page that Gradio serves then loads its scripts from another server.
    """
    try:
        check_proxies()
        address = networking.setup_tunnel(host, port, token, None, None)
    except ProxyUnusable as error:
        raise ServeError("proxy_unusable", name=error.name) from error
    except (
        RuntimeError,
        OSError,
        ValueError,
        httpx.HTTPError,
        ChecksumMismatchError,
        ShareCertificateWriteError,
    ) as error:
        raise ServeError("share_failed", reason=_reason(error)) from error
    return "https://" + address.partition("://")[2] if "://" in address else f"https://{address}"


def learn_hops(exposure: Exposure) -> None:
    """Ask the page through its own link, with a forged address: what stands behind that when it comes back is what proxies write
    there. Where nothing comes back, the one that is known for sure stays the only one."""
    exposure.probe, exposure.probed = secrets.token_urlsafe(32), ""
    headers = {PROBE_HEADER: exposure.probe, "X-Forwarded-For": FORGED}
    with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
        httpx.get(f"{exposure.url}/healthz", headers=headers, timeout=PROBE_TIMEOUT)
    exposure.probe = ""
    hops = [hop.strip() for hop in exposure.probed.split(",")]
    written = hops[hops.index(FORGED) + 1 :] if FORGED in hops else hops
    exposure.named_proxies = seen_by(exposure.proxies.peers, written)


def _reason(error: Exception) -> str:
    """The first line; Gradio hides what really happened behind a general sentence."""
    told = [" ".join(str(each).split()) for each in (error, error.__cause__) if each is not None]
    return ": ".join(line for line in told if line)[:200] or type(error).__name__
