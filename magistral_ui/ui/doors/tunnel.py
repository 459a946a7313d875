"""Opens Gradio's share link to a page that is served already; what comes through it passes the same doors."""

import httpx
from gradio import networking
from gradio.exceptions import ChecksumMismatchError, ShareCertificateWriteError

from magistral_ui.errors import ServeError
from magistral_ui.proxies import ProxyUnusable, check_proxies


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


def _reason(error: Exception) -> str:
    """The first line; Gradio hides what really happened behind a general sentence."""
    told = [" ".join(str(each).split()) for each in (error, error.__cause__) if each is not None]
    return ": ".join(line for line in told if line)[:200] or type(error).__name__
