"""From where the page can be reached, under which names, and through which trusted proxies; it opens nothing itself."""

import functools
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Reach = Literal["local", "network", "tunnel", "proxy", "space"]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
TUNNEL_SUFFIX = ".gradio.live"
PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~-]+){0,8}", re.ASCII)
MAX_PREFIX_LENGTH = 256
MAX_PROXIES = 16
MAX_CACHED_LENGTH = 64
"""Characters of an address; the parsed form of longer ones is not cached."""
BRACKETED = re.compile(r"\[([^\[\]]+)\](?::\d{1,5})?", re.ASCII)
WITH_PORT = re.compile(r"([\d.]+):\d{1,5}", re.ASCII)


def _networks(*written: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(each) for each in written)


LOOPBACK = _networks("127.0.0.0/8", "::1/128")
PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
"""This machine's own network: RFC 1918, RFC 3927, RFC 4193 and RFC 4291."""
SHARED = _networks("100.64.0.0/10")
"""RFC 6598: inside a provider's network, from which no visitor on the internet comes."""
INSIDE = LOOPBACK + PRIVATE + SHARED


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose X-Forwarded-For is trusted: by their addresses, their number, or both. By default, none."""

    peers: tuple[Network, ...] = ()
    """Where the nearest one connects from; the forwarding headers of any other peer are ignored."""
    count: int = 0
    """At most how many addresses at the right end of X-Forwarded-For are theirs: each appends its client's."""
    networks: tuple[Network, ...] = ()
    """Reading continues to the left only past addresses in these networks; without any, past each of the `count`."""

    def __bool__(self) -> bool:
        return self.count > 0

    def trusts(self, peer: str) -> bool:
        """Whether `peer` may say whose request it forwards."""
        return self.count > 0 and _is_in(address_in(peer), self.peers)

    def visitor(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The address whose request `peer` forwards, from the lines of X-Forwarded-For.

        It is the first from the right that is not a trusted proxy's. If a proxy wrote something that is not an address, it is the
        last address before that: the visitor may have written anything further to the left.
        """
        found = peer
        if not self.trusts(peer):
            return found
        for hop in reversed(",".join(forwarded_for).rsplit(",", self.count)[-self.count :]):
            address = address_in(hop)
            if address is None:
                break
            found = str(address)
            if self.networks and not _is_in(address, self.networks):
                break
        return found


NONE = TrustedProxies()
ONE = TrustedProxies(LOOPBACK + PRIVATE, 1)
"""The operator's own proxy, or Hugging Face's. Its visitors may have private addresses, too."""
TUNNEL = TrustedProxies(LOOPBACK, 1)
"""Gradio's share link. frpc runs on this machine and writes nothing; frps appends the address of its client (huggingface/frp,
pkg/util/vhost/http.go). What terminates TLS in front of it is not in its source, so ui/launch.py probes the link itself."""


@dataclass(slots=True)
class Exposure:
    """`local`: this computer only; `network`: other computers reach the port; `tunnel`: Gradio's share link leads here;
    `proxy`: a proxy of the operator's own does, under `url`; `space`: a Hugging Face Space."""

    reach: Reach = "local"
    host: str = "127.0.0.1"
    """The address that the server listens on."""
    url: str = ""
    names: set[str] = field(default_factory=set)
    """More host names under which the page answers."""
    named_proxies: TrustedProxies | None = None
    """The proxies that the operator named; None: the default ones for `reach`."""

    probe: str = ""
    """A secret by which ui/launch.py recognizes its own request while it finds out what the share link's proxies write."""
    probed: str = ""
    """The X-Forwarded-For with which that request arrived."""

    @property
    def shared(self) -> bool:
        return self.reach != "local"

    @property
    def forwarded(self) -> bool:
        """Whether a proxy receives the requests, forwards them, and says where they come from."""
        return self.reach in ("tunnel", "proxy", "space") or bool(self.proxies)

    @property
    def proxies(self) -> TrustedProxies:
        """The proxies that are trusted to say where a request comes from."""
        if self.named_proxies is not None:
            return self.named_proxies
        if self.reach != "tunnel":
            return ONE if self.reach in ("proxy", "space") else NONE
        # frpc runs on this machine, so it connects from the address that the server listens on, unless that is a wildcard.
        own = address_in(self.host)
        here = () if own is None or own.is_unspecified else (ipaddress.ip_network(own),)
        return replace(TUNNEL, peers=TUNNEL.peers + here)

    @property
    def prefix(self) -> str:
        """The path below which the operator's own proxy serves the page, such as `/ai`; empty for its root."""
        return urlsplit(self.url).path if self.reach == "proxy" else ""

    def has_name(self, host: str) -> bool:
        """Whether `host` (without a port) is a name of this page. Every IP address is: only names can be rebound."""
        host = host.lower().rstrip(".")
        if host in LOOPBACK_NAMES or host in self.names or host == self.host.lower() or is_address(host):
            return True
        if self.url:
            return host == urlsplit(self.url).hostname
        return self.reach == "tunnel" and host.endswith(TUNNEL_SUFFIX)

    def has_origin(self, origin: str, scheme: str, host: str) -> bool:
        """Whether `origin` is that of the page itself, as it was requested."""
        if origin in (f"{scheme}://{host}", f"https://{host}"):
            return True
        public = urlsplit(self.url)
        return bool(self.url) and origin == f"{public.scheme}://{public.netloc}".lower()


def exposure_of(host: str, share: str, environment: Mapping[str, str], proxies: str | None = None) -> Exposure:
    """The exposure that follows from `--host`, `--share` (`yes`, `no`, a URL), a Space's variables, and `--trusted-proxies`."""
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
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], name.partition(".")[0] + ".local"}


def seen_by(peers: tuple[Network, ...], hops: Sequence[str]) -> TrustedProxies | None:
    """The proxies that appended `hops` to the forged header of a test request; None if that is unclear.

    If all but the first are inside a provider's network, only such addresses are read past: the inner proxy may also be
    reached without the outer one.
    """
    addresses = [address_in(hop) for hop in hops]
    if not 0 < len(addresses) <= MAX_PROXIES or None in addresses:
        return None
    inside = all(_is_in(each, INSIDE) for each in addresses[1:])
    return TrustedProxies(peers, len(addresses), INSIDE if inside else ())


def read_trusted(value: str) -> TrustedProxies:
    """Parses `--trusted-proxies`: a number, or networks and addresses separated by commas. Raises ValueError otherwise."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        count = int(value[:4])
        if count > MAX_PROXIES:
            raise ValueError(value)
        return TrustedProxies(ONE.peers, count) if count else NONE
    networks = tuple(ipaddress.ip_network(_without_brackets(each.strip())) for each in value.split(","))
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("everybody would be a proxy")
    return TrustedProxies(LOOPBACK + networks, MAX_PROXIES, LOOPBACK + networks)


def is_prefix(path: str) -> bool:
    """Whether the page may be served below `path`: nothing in it leads to another server, upwards, or into a header."""
    return len(path) <= MAX_PREFIX_LENGTH and PREFIX.fullmatch(path) is not None


def is_loopback(host: str) -> bool:
    """Whether `host` is an address or name that only this machine can reach."""
    address = address_in(host.strip("[]")) if is_address(host) else None
    return address.is_loopback if address else host.lower() == "localhost"


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def plain_address(peer: str) -> str:
    """The address of a connection, without the prefix of an IPv4 address on a dual-stack socket."""
    return peer.removeprefix("::ffff:") if "." in peer else peer


def address_in(hop: str) -> IPAddress | None:
    """The address that a proxy wrote: plain, in brackets, with a port or a zone; None if it is not one."""
    return _address_in(hop) if len(hop) <= MAX_CACHED_LENGTH else _address_in.__wrapped__(hop)


@functools.lru_cache(1024)
def _address_in(hop: str) -> IPAddress | None:
    text = hop.strip(" \t")
    if (bracketed := BRACKETED.fullmatch(text)) and ":" in bracketed[1]:
        text = bracketed[1]
    elif with_port := WITH_PORT.fullmatch(text):
        text = with_port[1]
    if ":" in text:
        text = text.partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_brackets(network: str) -> str:
    return network[1:-1] if network.startswith("[") and network.endswith("]") else network


def _is_in(address: IPAddress | None, networks: tuple[Network, ...]) -> bool:
    return address is not None and any(address in network for network in networks)
