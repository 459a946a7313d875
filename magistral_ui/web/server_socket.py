"""Binds an address and a port, or says why that is impossible, and starts the server in a thread; not what is served.

Gradio would look for a free port on 127.0.0.1 whatever the address is, report every failure as a port in use, give up after five
seconds on a busy machine, and on a Hugging Face Space, or if a variable says so, accept new code for this process from
whoever reaches another port.
"""

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from magistral_ui.errors import PortInUse, ServeError

if TYPE_CHECKING:  # the address is checked before these are imported, which takes seconds
    from gradio.http_server import Server
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_OPEN_FILES = 65_536
START_TIMEOUT = 120.0
WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Wildcard hosts, which stand for all addresses of a machine, and the address at which it reaches itself."""
PERMISSION_ERRNOS = (errno.EACCES, errno.EPERM)
UNSUPPORTED_ERRNOS = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
STARTUP_REQUEST = ("GET", "/gradio_api/startup-events")
"""The request that Gradio sends to itself before `launch` returns."""


def bind(host: str, ports: Iterable[int]) -> list[socket.socket]:
    """Sockets that listen at `host` on the first free one of `ports`; a name may stand for several addresses.

    Raises PortInUse if none is free, ServeError if the address cannot be used at all.
    """
    wanted = list(ports)
    for port in wanted:
        try:
            return _bound(_addresses(host, port), host)
        except PortInUse:
            continue
    raise PortInUse(port=wanted[0] if len(wanted) == 1 else f"{wanted[0]}–{wanted[-1]}")


def url_of(host: str, port: int) -> str:
    if host in WILDCARD_HOSTS:
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextlib.contextmanager
def served_on(sockets: list[socket.socket]) -> Iterator[None]:
    """Make Gradio's `launch` serve on `sockets`."""
    from gradio import http_server

    def start(app: Any, **_: object) -> tuple[str, int, str, "Server"]:
        host, port = sockets[0].getsockname()[:2]
        return host, port, url_of(WILDCARD_HOSTS.get(host, host), port), _start(app, sockets)

    original, http_server.start_server = http_server.start_server, start  # type: ignore[assignment]
    try:
        yield
    finally:
        http_server.start_server = original


def startup_gate(app: "ASGIApp") -> "ASGIApp":
    """Wraps `app` until connections.py opens the server: only Gradio's own request reaches it.

    Gradio opens the port before there is middleware around its app. A connection that was made until then would keep this
    wrapper, so it is closed, and its client must connect again.
    """

    from starlette.responses import PlainTextResponse

    async def gate(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "lifespan" or (scope["method"], scope["path"]) == STARTUP_REQUEST:
            await app(scope, receive, send)
        else:
            await PlainTextResponse("Not Found", 404, {"Connection": "close"})(scope, receive, send)

    return gate


def _start(app: Any, sockets: list[socket.socket]) -> "Server":
    """Start the server, always with h11, which connections.py makes strict and watches, and without WebSockets."""
    import uvicorn
    from gradio.http_server import Server

    server = Server(
        uvicorn.Config(
            startup_gate(app),
            log_level="warning",
            workers=1,
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
        )
    )
    server.thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    server.thread.start()
    begun = threading.Event()
    for _ in range(int(START_TIMEOUT / 0.01)):
        if server.started or not server.thread.is_alive():
            break
        begun.wait(0.01)
    if not server.started:
        raise ServeError
    return server


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, ValueError) as error:  # ValueError: too long, or with characters that no name has
        raise ServeError("host_unknown", host=host) from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(addresses: list[tuple[socket.AddressFamily, Any]], host: str) -> list[socket.socket]:
    """A listening socket for each address that this machine has. Raises the first failure if it has none."""
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in addresses:
        try:
            bound.append(_listening(family, address))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                for each in bound:
                    each.close()
                raise PortInUse(port=address[1]) from error
            failure = failure or error
    if not bound and failure is not None:
        raise _described(failure, host, addresses[0][1][1]) from failure
    return bound


def _listening(family: socket.AddressFamily, address: Any) -> socket.socket:
    both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    created = socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    # The protocol is explicit, because asyncio sets TCP_NODELAY only on sockets that are marked as TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, created.detach())
    listener.setblocking(False)
    return listener


def _described(error: OSError, host: str, port: int) -> ServeError:
    if error.errno in PERMISSION_ERRNOS:
        return ServeError("port_forbidden", port=port)
    if error.errno == errno.EADDRNOTAVAIL:
        return ServeError("address_not_here", host=host)
    if error.errno in UNSUPPORTED_ERRNOS:
        return ServeError("address_not_spoken", host=host)
    return ServeError(
        "not_listening", host=host, port=port, reason=os.strerror(error.errno) if error.errno else str(error)
    )


def allow_many_files() -> None:
    """Raise the limit on open files, which include connections, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
