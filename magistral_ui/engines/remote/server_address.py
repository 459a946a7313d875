"""The address of a server, and which access key may be sent to it; it opens no connection."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

API_KEY_VARIABLE = "MAGISTRAL_UI_API_KEY"
"""Sent to whichever server `--base-url` names: whoever sets it means that server."""
VENDOR_KEY_VARIABLES = {"mistral.ai": "MISTRAL_API_KEY", "openai.com": "OPENAI_API_KEY"}
"""Keys that many people have set already: each is sent to its own vendor only, never to another server."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server's address and its key, which neither the log nor the page ever shows."""

    base_url: str
    """Ends with the version, as in `http://127.0.0.1:8000/v1`."""
    key: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """Host name and port, for messages."""
        return urlsplit(self.base_url).netloc

    @property
    def name(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.base_url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def url(self, path: str) -> str:
        """A URL outside the versioned API: `/props` is not below `/v1`."""
        return self.base_url.rsplit("/v1", 1)[0] + path


def read_base_url(text: str) -> str:
    """`text` as a base URL, with `/v1` if it has no path. Raises ValueError if it is not a URL, or contains a password."""
    url = text.strip().rstrip("/")
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError(text)
    _ = parts.port  # raises ValueError if it is out of range
    return url if parts.path else f"{url}/v1"


def address_of(base_url: str, environment: Mapping[str, str]) -> ServerAddress:
    """The address of the server at `base_url`, with the key that is meant for it, if any."""
    host = urlsplit(base_url).hostname or ""
    names = [
        API_KEY_VARIABLE,
        *(name for owner, name in VENDOR_KEY_VARIABLES.items() if host == owner or host.endswith(f".{owner}")),
    ]
    return ServerAddress(base_url, next((key for name in names if (key := environment.get(name, "").strip())), ""))
