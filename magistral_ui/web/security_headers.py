"""The security headers of every response, which make untrusted content harmless in the browser; not what is served."""

import secrets
from collections.abc import Callable
from functools import partial

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.web.request_guard import FILE_PATH

HUGGING_FACE_SOURCES = "https://huggingface.co https://*.huggingface.co https://*.hf.space"
PERMISSIONS_POLICY = (
    "accelerometer=(), autoplay=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=(), xr-spatial-tracking=()"
)
ASSETS = ("/assets/", "/static/", "/theme.css", "/favicon.ico")
FILE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
"""The policy for a file that a visitor sent: opened on its own, it can only be viewed."""
CORS_HEADERS = ("access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-headers")


def content_security_policy(nonce: str, *, framed: bool = False) -> str:
    """The Content-Security-Policy (CSP) of a page.

    Images, fonts and connections stay on this server, whatever a model writes. Scripts come from this server's files, or
    carry the page's `nonce`. Gradio compiles its templates with `new Function`, hence 'unsafe-eval'; Svelte and KaTeX write
    styles into elements, hence 'unsafe-inline' for these.
    """
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
            "script-src-attr 'none'",
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
            f"frame-ancestors 'self' {HUGGING_FACE_SOURCES}" if framed else "frame-ancestors 'self'",
        )
    )


class SecurityHeadersMiddleware:
    """Adds the headers to every response, removes CORS headers, and adds the nonce to the page's scripts."""

    def __init__(self, app: ASGIApp, *, framed: bool = False) -> None:
        """`framed`: Hugging Face may embed the page in its own."""
        self.app, self._framed = app, framed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        nonce = secrets.token_urlsafe(16)
        mark = f'<script nonce="{nonce}"'.encode()
        send_page = completed(send, lambda _, body: body.replace(b"<script", mark))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._secure(MutableHeaders(scope=message), scope, nonce)
            await send_page(message)

        await self.app(uncompressed(scope) if scope["path"] == "/" else scope, receive, with_headers)

    def _secure(self, headers: MutableHeaders, scope: Scope, nonce: str) -> None:
        for name in CORS_HEADERS:
            del headers[name]
        is_upload = scope["path"].startswith(FILE_PATH)
        headers["Content-Security-Policy"] = (
            FILE_POLICY if is_upload else content_security_policy(nonce, framed=self._framed)
        )
        headers["X-Content-Type-Options"] = "nosniff"
        # Not `no-referrer`: with it, a browser sends our own forms with `Origin: null`.
        headers["Referrer-Policy"] = "same-origin"
        headers["Permissions-Policy"] = PERMISSIONS_POLICY
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["X-Permitted-Cross-Domain-Policies"] = "none"
        headers.setdefault("Server", "magistral-ui")
        if not self._framed:
            headers["X-Frame-Options"] = "SAMEORIGIN"
        if scope["scheme"] == "https":
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if not is_asset(scope["path"]):
            headers["Cache-Control"] = "no-store"


def is_asset(path: str) -> bool:
    """Whether a path is one of the page's own files, which are the same for everybody."""
    return path.startswith(ASSETS) or (path.startswith("/magistral/") and "." in path)


def uncompressed(scope: Scope) -> Scope:
    """The request without compression, for a page that `completed` changes."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers}


def completed(send: Send, complete: Callable[[MutableHeaders, bytes], bytes]) -> Send:
    """`send` that buffers an HTML page and sends what `complete` makes of it; anything else is sent unchanged."""
    start: Message = {}
    page = bytearray()

    async def send_completed(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
                start = message
                return
        if not start:
            await send(message)
            return
        page.extend(message.get("body", b""))
        if not message.get("more_body", False):
            headers = MutableHeaders(scope=start)
            body = complete(headers, bytes(page))
            if "content-length" in headers and page:  # the answer to HEAD has the length, but no page
                headers["Content-Length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

    return send_completed


class CompletedPageMiddleware:
    """Changes the page that Gradio renders for everybody with `complete`; everything else is passed on unchanged."""

    def __init__(self, app: ASGIApp, *, complete: Callable[[Scope, MutableHeaders, bytes], bytes]) -> None:
        self.app, self._complete = app, complete

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in ("", "/")
        if is_page and scope["method"] == "GET":
            send, scope = completed(send, partial(self._complete, scope)), uncompressed(scope)
        await self.app(scope, receive, send)
