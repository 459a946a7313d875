"""From where the page can be reached, and under which names; it opens nothing itself."""

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from magistral_ui.web.trusted_proxies import (
    NONE,
    ONE,
    TUNNEL,
    TrustedProxies,
    address_in,
    read_trusted,
)

Reach = Literal["local", "network", "tunnel", "proxy", "space"]
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
TUNNEL_SUFFIX = ".gradio.live"
PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~-]+){0,8}", re.ASCII)
MAX_PREFIX_LENGTH = 256


@dataclass(slots=True)
class Exposure:
    """`local`: this computer only; `network`: other computers reach the port; `tunnel`: Gradio's share link leads here;
    `proxy`: a proxy of the operator's own does, under `url`; `space`: a Hugging Face Space."""

    reach: Reach = "local"
    host: str = "127.0.0.1"
    """The address that is listened on."""
    url: str = ""
    """The public address, where there is one."""
    names: set[str] = field(default_factory=set)
    """More host names under which the page answers."""
    named_proxies: TrustedProxies | None = None
    """The proxies that the operator named; None: those that belong to the reach."""

    probe: str = ""
    """A secret by which share_tunnel.py finds its own request again, while it asks what proxies write."""
    probed: str = ""
    """The X-Forwarded-For with which that came back."""

    @property
    def shared(self) -> bool:
        """Whether strangers may reach the page."""
        return self.reach != "local"

    @property
    def forwarded(self) -> bool:
        """Whether somebody else's program takes the requests in and hands them on, and tells from where they came."""
        return self.reach in ("tunnel", "proxy", "space") or bool(self.proxies)

    @property
    def proxies(self) -> TrustedProxies:
        """Whose word is taken for where a request comes from."""
        if self.named_proxies is not None:
            return self.named_proxies
        if self.reach == "tunnel":
            return self._tunnel()
        return {"proxy": ONE, "space": ONE}.get(self.reach, NONE)

    def _tunnel(self) -> TrustedProxies:
        """Gradio's client stands on this machine, so it has the address that is listened on, where that is one."""
        own = address_in(self.host)
        here = () if own is None or own.is_unspecified else (ipaddress.ip_network(own),)
        return replace(TUNNEL, peers=TUNNEL.peers + here)

    @property
    def public_name(self) -> str:
        """The host's name in the public address."""
        return urlsplit(self.url).hostname or ""

    @property
    def prefix(self) -> str:
        """The path below which a proxy of the operator's own shows the page, such as `/ai`; empty: at its root."""
        return urlsplit(self.url).path if self.reach == "proxy" else ""

    def has_name(self, host: str) -> bool:
        """Whether `host` (without a port) is a name of this page. A bare address always is: only names can be rebound."""
        host = host.lower().rstrip(".")
        if host in LOOPBACK_NAMES or host in self.names or host == self.host.lower() or is_address(host):
            return True
        if self.url:
            return host == self.public_name
        return self.reach == "tunnel" and host.endswith(TUNNEL_SUFFIX)

    def has_origin(self, origin: str, scheme: str, host: str) -> bool:
        """Whether the page itself, as it was asked for, has this origin."""
        return origin in (f"{scheme}://{host}", f"https://{host}") or bool(self.url and origin == origin_of(self.url))


def exposure_of(host: str, share: str, environment: Mapping[str, str], proxies: str | None = None) -> Exposure:
    """The exposure that follows from the address, from `--share` (`yes`, `no`, or a URL), and from a Space's variables.

    `proxies`: what `--trusted-proxies` says.
    """
    exposure = _reached(host, share, environment)
    exposure.named_proxies = None if proxies is None else read_trusted(proxies)
    return exposure


def _reached(host: str, share: str, environment: Mapping[str, str]) -> Exposure:
    if space := environment.get("SPACE_HOST"):
        names = {name.strip().lower() for name in space.split(",")}
        return Exposure("space", host, f"https://{sorted(names)[0]}", names)
    if share == "yes":
        return Exposure("tunnel", host)
    if share != "no":
        return Exposure("proxy", host, share.rstrip("/"))
    if is_loopback(host):
        return Exposure("local", host)
    return Exposure("network", host, names=own_names())


def own_names() -> set[str]:
    """What this machine calls itself."""
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], name.partition(".")[0] + ".local"}


def is_prefix(path: str) -> bool:
    """Whether `path` may stand before the page's own: nothing in it leads to another server, up, or into a header."""
    return len(path) <= MAX_PREFIX_LENGTH and PREFIX.fullmatch(path) is not None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine for itself only."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_address(host: str) -> bool:
    """Whether `host` is an IP address, not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def origin_of(url: str) -> str:
    """Scheme, name and port of a URL, as a browser writes an origin."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
