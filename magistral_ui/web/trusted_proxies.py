"""Knows which proxies stand before the page, and whom they saw; what a visitor wrote to the left of their words is never read."""

import functools
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PROXIES = 16
"""In a row."""
LONGEST = 64
"""Characters of what is remembered: each request has an address, and most come from where the last one came from."""
BRACKETED = re.compile(r"\[([^\[\]]+)\](?::\d{1,5})?", re.ASCII)
WITH_PORT = re.compile(r"([\d.]+):\d{1,5}", re.ASCII)


def _networks(*written: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(each) for each in written)


LOOPBACK = _networks("127.0.0.0/8", "::1/128")
PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
"""Of this machine's own network: RFC 1918, RFC 3927, RFC 4193 and RFC 4291."""
SHARED = _networks("100.64.0.0/10")
"""RFC 6598: inside of a provider, where a visitor of the internet cannot come from."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose word is taken: by where they stand, by how many they are, or both. As it is: none."""

    peers: tuple[Network, ...] = ()
    """From where the nearest one connects; what anybody else says about forwarding is not read."""
    count: int = 0
    """How many addresses at the right end of X-Forwarded-For they wrote, at most: each writes whom it got the request from."""
    networks: tuple[Network, ...] = ()
    """What is read further only over addresses in these; without any, over each of the `count`."""

    def __bool__(self) -> bool:
        return self.count > 0

    def trusts(self, peer: str) -> bool:
        """Whether the other end of a connection may say for whom it asks."""
        return self.count > 0 and _is_in(address_in(peer), self.peers)

    def visitor(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The address for which `peer` asks, from the lines of X-Forwarded-For.

        From the right, that is the first which no trusted proxy has. Where a proxy wrote something that is no address, it is the
        last one before that: a wrong guess would be a visitor's own words.
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
"""A proxy of the operator's own, or Hugging Face's. Its visitors may have private addresses, too."""
TUNNEL = TrustedProxies(LOOPBACK, 1)
"""Gradio's share link. frpc runs on this machine and writes nothing; frps writes the address of who asked it (huggingface/frp,
pkg/util/vhost/http.go). What ends TLS before it is not in its source: share_tunnel.py asks."""
INSIDE = LOOPBACK + PRIVATE + SHARED


def seen_by(peers: tuple[Network, ...], hops: Sequence[str]) -> TrustedProxies | None:
    """The proxies that wrote `hops` behind what was forged for a test; None where that cannot be told.

    Where those between are inside of a provider, only such addresses are read over: somebody may reach the inner one alone.
    """
    addresses = [address_in(hop) for hop in hops]
    if not 0 < len(addresses) <= MAX_PROXIES or None in addresses:
        return None
    inside = all(_is_in(each, INSIDE) for each in addresses[1:])
    return TrustedProxies(peers, len(addresses), INSIDE if inside else ())


def read_trusted(value: str) -> TrustedProxies:
    """What `--trusted-proxies` says: a number, or networks and addresses with commas between. ValueError for anything else."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        count = int(value[:4])
        if count > MAX_PROXIES:
            raise ValueError(value)
        return TrustedProxies(ONE.peers, count) if count else NONE
    networks = tuple(ipaddress.ip_network(_plain(each.strip())) for each in value.split(","))
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("everybody would be a proxy")
    return TrustedProxies(LOOPBACK + networks, MAX_PROXIES, LOOPBACK + networks)


def address_in(hop: str) -> IPAddress | None:
    """The address that a proxy wrote: plain, in brackets, with a port or a zone; None where it is none."""
    return _address_in(hop) if len(hop) <= LONGEST else _address_in.__wrapped__(hop)


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


def _plain(network: str) -> str:
    """`network` without the brackets that an address of IPv6 may have."""
    return network[1:-1] if network.startswith("[") and network.endswith("]") else network


def _is_in(address: IPAddress | None, networks: tuple[Network, ...]) -> bool:
    return address is not None and any(address in network for network in networks)
