"""Addresses are taken as they are meant, IPv6 too, and what cannot be had is told as what it is."""

import errno
import socket
from collections.abc import Iterator

import httpx
import pytest
from gradio import http_server
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from magistral_ui.errors import PortInUse, ServeError
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from magistral_ui.web import connections, server_socket
from magistral_ui.web.server_socket import bind, url_of
from tests.scripted_engine import ScriptedEngine

NEW = (0,)
"""Whatever port the system gives."""


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://localhost:80/"),
        ("::", "http://localhost:80/"),
        ("::1", "http://[::1]:80/"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:80/"),
        ("box.local", "http://box.local:80/"),
    ],
)
def test_the_address_is_one_that_a_browser_opens(host: str, url: str) -> None:
    assert url_of(host, 80) == url


@ipv6
@pytest.mark.parametrize(
    ("host", "reached"),
    [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"]), ("0.0.0.0", ["127.0.0.1"]), ("127.0.0.1", ["127.0.0.1"])],
)
def test_a_page_is_reached_where_it_listens_and_only_there(host: str, reached: list[str]) -> None:
    engine = ScriptedEngine([])
    visitors = Visitors(engine)
    page = build_page(engine, visitors)
    url = launch(page, visitors, host=host, port=free(host))
    try:
        port = httpx.URL(url).port
        for address in ("127.0.0.1", "::1"):
            asked = f"http://[{address}]:{port}/healthz" if ":" in address else f"http://{address}:{port}/healthz"
            with httpx.Client(trust_env=False, timeout=60) as http:
                if address in reached:
                    assert http.get(asked).json() == {"status": "ready"}
                else:
                    with pytest.raises(httpx.ConnectError):
                        http.get(asked)
    finally:
        close(page)
        engine.close()
        visitors.close()


def free(host: str) -> int:
    found = bind(host, NEW)
    port: int = found[0].getsockname()[1]
    for each in found:
        each.close()
    return port


def test_a_port_in_use_is_named_and_the_next_one_taken(taken: int) -> None:
    with pytest.raises(PortInUse) as refused:
        bind("127.0.0.1", [taken])
    assert refused.value.message.values["port"] == taken
    found = bind("127.0.0.1", [taken, 0])
    assert found[0].getsockname()[1] != taken
    found[0].close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "a..b", "http://127.0.0.1", "127.0.0.1:80", "a\0b"])
def test_a_name_that_nobody_has_is_told(host: str) -> None:
    with pytest.raises(ServeError) as refused:
        bind(host, NEW)
    assert refused.value.message.key == "host_unknown"
    assert refused.value.message.values["host"] == host


@pytest.mark.parametrize("host", ["203.0.113.5", pytest.param("2001:db8::5", marks=ipv6)])
def test_an_address_of_another_machine_is_told(host: str) -> None:
    with pytest.raises(ServeError) as refused:
        bind(host, NEW)
    assert (refused.value.message.key, refused.value.message.values["host"]) == ("address_not_here", host)


@pytest.mark.parametrize(
    ("number", "key"),
    [
        (errno.EACCES, "port_forbidden"),
        (errno.EPERM, "port_forbidden"),
        (errno.EAFNOSUPPORT, "address_not_spoken"),
        (errno.ENOBUFS, "not_listening"),
    ],
)
def test_other_failures_are_told_as_what_they_are(monkeypatch: pytest.MonkeyPatch, number: int, key: str) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(number, "why")

    monkeypatch.setattr(server_socket, "_listening", fail)
    with pytest.raises(ServeError) as refused:
        bind("127.0.0.1", [80])
    assert refused.value.message.key == key


def test_a_name_for_two_addresses_listens_at_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET6, ("2001:db8::5", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    monkeypatch.setattr(server_socket, "_addresses", lambda host, port: both)
    (found,) = bind("two", NEW)
    assert found.getsockname()[0] == "127.0.0.1"
    found.close()


def test_what_is_written_is_sent_at_once() -> None:
    """Else an answer whose head and body are written one after the other waits until the head was acknowledged, 40 ms."""
    for listener in bind("localhost", NEW):
        with listener:
            assert listener.proto == socket.IPPROTO_TCP, "asyncio takes no other for TCP"


def test_before_it_is_opened_only_gradio_s_own_request_gets_through() -> None:
    """And a connection that was made until then, which nobody watches, never gets past the gate."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse(scope["path"])(scope, receive, send)

    with server_socket.served_on(bind("127.0.0.1", NEW)):
        _, port, _, server = http_server.start_server(app)  # type: ignore[arg-type]  # as Gradio calls it
    early = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(3)]
    head = b" HTTP/1.1\r\nHost: x\r\n\r\n"
    try:
        early[0].sendall(b"GET /gradio_api/startup-events" + head)
        assert early[0].recv(100).startswith(b"HTTP/1.1 200 ")
        early[1].sendall(b"GET /config" + head)
        assert b"HTTP/1.1 404 " in (refused := everything(early[1]))
        assert b"connection: close" in refused.lower()
        connections.open_to_visitors(server, app, is_proxy=lambda _: False, unread_seconds=60)
        for each in (early[0], early[2]):
            each.sendall(b"GET /config" + head)
            assert b"HTTP/1.1 404 " in everything(each)
        with httpx.Client(trust_env=False, timeout=60) as http:
            assert http.get(f"http://127.0.0.1:{port}/config").text == "/config"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as doubtful:
            doubtful.sendall(b"GET  /config" + head)
            assert b"HTTP/1.1 400 " in everything(doubtful)
    finally:
        for each in early:
            each.close()
        server.close()


def everything(connection: socket.socket) -> bytes:
    """What comes until the other end closes the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))
