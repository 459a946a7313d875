"""Opens Gradio's share link to a page that is served already; what comes through it passes the same doors."""

import httpx
from gradio import networking
from gradio.exceptions import ChecksumMismatchError, ShareCertificateWriteError

from magistral_ui.errors import ServeError


def open_tunnel(host: str, port: int, token: str) -> str:
    """The public address. ServeError, with the reason, where there is none.

    Not `launch(share=True)`: the page that Gradio serves then loads its scripts from another server.
    """
    try:
        address = networking.setup_tunnel(host, port, token, None, None)
    except (
        RuntimeError,
        OSError,
        ValueError,
        httpx.HTTPError,
        ChecksumMismatchError,
        ShareCertificateWriteError,
    ) as error:
        raise ServeError("share_failed", reason=str(error).splitlines()[0][:200]) from error
    return "https://" + address.partition("://")[2] if "://" in address else f"https://{address}"
