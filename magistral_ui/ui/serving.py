"""Serves a built page: our assets, the headers that keep a stranger's text harmless, and the port; not what is on the page."""

import socket
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.errors import PortInUse
from magistral_ui.ui.labels import strings_script, translations
from magistral_ui.ui.theme import theme

ASSETS = Path(str(resources.files("magistral_ui.ui") / "assets"))
FREE_CHOICE = range(7860, 7960)
MAX_FILE_SIZE = "50mb"

# Gradio's own scripts need inline and eval; pictures, fonts and connections stay on this server, whatever a model writes.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "frame-src 'none'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class SafeHeaders:
    """Adds HEADERS to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the response back with the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def head() -> str:
    """What the page's head needs of ours: texts, styles and scripts, all from this server."""
    return "\n".join(
        (
            strings_script(),
            '<link rel="stylesheet" href="magistral/vendor/katex.css">',
            '<link rel="stylesheet" href="magistral/page.css">',
            '<link rel="stylesheet" href="magistral/transcript.css">',
            '<link rel="modulepreload" href="magistral/main.js">',
        )
    )


def launch_options() -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` that make Gradio safe and quiet."""
    return {
        "theme": theme(),
        "head": head(),
        "i18n": translations(),
        "app_kwargs": {
            "middleware": [Middleware(SafeHeaders)],
            "routes": [Mount("/magistral", StaticFiles(directory=ASSETS))],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        "footer_links": [],
        "ssr_mode": False,
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": MAX_FILE_SIZE,
        "state_session_capacity": 200,
        "pwa": False,
        "quiet": True,
    }


def launch(demo: gr.Blocks, *, host: str = "127.0.0.1", port: int | None = None, share: bool = False) -> str:
    """Serve `demo` without blocking, and return its address.

    Raises PortInUse where `port` is taken; without a port, the first free one from 7860 on is used.
    """
    # Asked here, because Gradio leaves the sockets open with which it asks, and tells a taken port by a trace.
    wanted = (port,) if port is not None else FREE_CHOICE
    free = next((each for each in wanted if _is_free(host, each)), None)
    if free is None:
        raise PortInUse(port=port if port is not None else f"{FREE_CHOICE[0]}–{FREE_CHOICE[-1]}")
    _, local, public = demo.launch(
        **launch_options(), server_name=host, server_port=free, share=share, prevent_thread_lock=True
    )
    return str(public or local)


def close(demo: gr.Blocks) -> None:
    """Stop serving."""
    demo.close(verbose=False)


def _is_free(host: str, port: int) -> bool:
    """Whether nothing listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
