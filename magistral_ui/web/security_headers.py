"""The headers that keep what others wrote harmless in the browser, on every response; it does not know what is served."""

import secrets

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
"""For a file that a visitor sent: opened on its own, it can only be looked at."""
CORS_HEADERS = ("access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-headers")


def policy(nonce: str, *, framed: bool = False) -> str:
    """The Content-Security-Policy of a page.

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
    """Adds the headers to every response, removes any that would open it to other origins, and marks the page's scripts."""

    def __init__(self, app: ASGIApp, *, framed: bool = False) -> None:
        """`framed`: Hugging Face may show the page inside its own."""
        self.app, self._framed = app, framed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        nonce = secrets.token_urlsafe(16)
        page = NonceSender(nonce, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._secure(MutableHeaders(scope=message), scope, nonce)
                page.begin(message)
            await page.send(message)

        await self.app(_uncompressed(scope), receive, with_headers)

    def _secure(self, headers: MutableHeaders, scope: Scope, nonce: str) -> None:
        for name in CORS_HEADERS:
            del headers[name]
        is_upload = scope["path"].startswith(FILE_PATH)
        headers["Content-Security-Policy"] = FILE_POLICY if is_upload else policy(nonce, framed=self._framed)
        headers["X-Content-Type-Options"] = "nosniff"
        # Not `no-referrer`: with it a browser sends our own forms as if from nowhere (Origin: null).
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
    """Whether a path is that of one of the page's own files, which are the same for everybody."""
    return path.startswith(ASSETS) or (path.startswith("/magistral/") and "." in path)


def _uncompressed(scope: Scope) -> Scope:
    """The page itself is requested uncompressed, because its scripts get their nonces on the way out."""
    if scope["path"] != "/":
        return scope
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers}


class NonceSender:
    """Sends a response; in an HTML page, each script element gets the nonce."""

    def __init__(self, nonce: str, send: Send) -> None:
        self._mark, self._send = f'<script nonce="{nonce}"'.encode(), send
        self._start: Message | None = None
        self._body = bytearray()

    def begin(self, message: Message) -> None:
        """Hold an HTML page back until it is complete."""
        headers = MutableHeaders(scope=message)
        if headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
            self._start = message

    async def send(self, message: Message) -> None:
        if self._start is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish()

    async def _finish(self) -> None:
        assert self._start is not None
        start, self._start = self._start, None
        body = bytes(self._body).replace(b"<script", self._mark)
        headers = MutableHeaders(scope=start)
        if "content-length" in headers and self._body:
            headers["Content-Length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})
