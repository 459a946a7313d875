"""What the environment says about proxies and certificates: which holds, whether it can be used, and how to do without."""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SCHEMES = ("http", "https", "all")
"""What a proxy may be named for: `http_proxy`, `https_proxy` and `all_proxy`, in small or capital letters."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Whom OpenSSL trusts, and with it all that connects from here."""


class ProxyUnusable(OSError):
    """Nothing can be sent through the proxy that `name` names."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def named_proxies() -> dict[str, str]:
    """The proxies that programs are to use, by scheme: the variables', else the system's; none where `no_proxy` is `*`."""
    named = getproxies()
    if "*" in (each.strip() for each in named.get("no", "").split(",")):
        return {}
    return {scheme: named[scheme] for scheme in SCHEMES if named.get(scheme)}


def check_proxies() -> None:
    """Raises ProxyUnusable: a client looks at all that are named, even where it needs only one."""
    for scheme, url in named_proxies().items():
        if not _is_usable(url):
            names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
            raise ProxyUnusable(next((name for name in names if os.environ.get(name)), names[0]))


def proxy_for(url: str) -> str:
    """The proxy to ask `url` through; empty where it is asked directly, as this machine is. Raises ProxyUnusable."""
    parts = urlsplit(url)
    if is_here(parts.hostname or ""):
        return ""
    check_proxies()
    named = named_proxies()
    proxy = named.get(parts.scheme) or named.get("all", "")
    if not proxy or proxy_bypass(parts.netloc):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


@contextmanager
def alone() -> Iterator[None]:
    """Meanwhile, what is asked goes straight to whom it is for, and no file of certificates is read.

    For what the app asks of itself, and for clients that are made at the import of a library: a proxy that is named badly, or
    certificates that are gone, end both. `*` also keeps away the proxies of Windows' and macOS' own settings.
    """
    names = [*CERTIFICATES, *(f"{scheme}_proxy" for scheme in (*SCHEMES, "no"))]
    held = {name: value for name, value in os.environ.items() if name in names or name.lower() in names}
    for name in held:
        del os.environ[name]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"
    try:
        yield
    finally:
        for name in ("no_proxy", "NO_PROXY"):
            os.environ.pop(name, None)
        os.environ.update(held)


def is_here(host: str) -> bool:
    """Whether `host` is this machine, to which no proxy leads."""
    name = host.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _is_usable(url: str) -> bool:
    from httpx2 import InvalidURL, Proxy

    address = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(address)
        possible = bool(parts.hostname) and (parts.port or 1) > 0 and not any(sign.isspace() for sign in url)
        scheme = Proxy(address).url.scheme
    except (InvalidURL, ValueError):
        return False
    return possible and (scheme in ("http", "https") or find_spec("socksio") is not None)
