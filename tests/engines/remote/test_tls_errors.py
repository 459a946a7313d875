"""A certificate that is refused is told by its reason, and TLS where none is spoken, by servers with real certificates."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme

from magistral_ui.engines.remote.detection import list_models
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.request_errors import failed_request
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.errors import ServerUnusable
from tests.loopback import Answering

ServeTls = Callable[..., int]


class Models(Answering):
    """A server with one model."""

    def do_GET(self) -> None:
        self.say({"object": "list", "data": [{"id": "m"}]})


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Who signs; trusted here."""
    found = trustme.CA()
    found.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return found


@pytest.fixture
def serve() -> Iterator[ServeTls]:
    """A function that serves models with a certificate, or without TLS."""
    from http.server import ThreadingHTTPServer

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    servers: list[tuple[Quiet, threading.Thread]] = []

    def start(certificate: trustme.LeafCert | None) -> int:
        server = Quiet(("127.0.0.1", 0), Models)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return server.server_port

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def told(url: str) -> str:
    """The key of what is told about a server; empty where its models are."""

    async def ask() -> str:
        server = ServerClient(ServerAddress(url))
        try:
            await list_models(server)
        except ServerUnusable as error:
            return error.message.key
        finally:
            await server.close()
        return ""

    return asyncio.run(ask())


def test_a_certificate_of_somebody_trusted_is_taken(authority: trustme.CA, serve: ServeTls) -> None:
    port = serve(authority.issue_cert("127.0.0.1", "localhost"))
    assert told(f"https://127.0.0.1:{port}/v1") == ""
    assert told(f"https://localhost:{port}/v1") == "", "also without the environment's proxies, its certificates hold"


@pytest.mark.usefixtures("authority")
def test_one_of_a_stranger_is_not(serve: ServeTls) -> None:
    port = serve(trustme.CA().issue_cert("127.0.0.1"))
    assert told(f"https://127.0.0.1:{port}/v1") == "remote_certificate_untrusted"


def test_neither_is_an_old_one_nor_another_s(authority: trustme.CA, serve: ServeTls) -> None:
    now = datetime.now(timezone.utc)
    old = authority.issue_cert("127.0.0.1", not_before=now - timedelta(9), not_after=now - timedelta(2))
    early = authority.issue_cert("127.0.0.1", not_before=now + timedelta(2), not_after=now + timedelta(9))
    for certificate in (old, early):
        assert told(f"https://127.0.0.1:{serve(certificate)}/v1") == "remote_certificate_expired"
    for certificate in (authority.issue_cert("example.org"), authority.issue_cert("192.168.1.1")):
        port = serve(certificate)
        assert told(f"https://127.0.0.1:{port}/v1") == "remote_certificate_name"
        assert told(f"https://localhost:{port}/v1") == "remote_certificate_name"


def test_tls_is_missed_and_met(authority: trustme.CA, serve: ServeTls) -> None:
    assert told(f"https://127.0.0.1:{serve(None)}/v1") == "remote_not_tls"
    assert told(f"http://127.0.0.1:{serve(authority.issue_cert('127.0.0.1'))}/v1") == "remote_needs_tls"
    assert told(f"http://127.0.0.1:{serve(trustme.CA().issue_cert('x'))}/v1") == "remote_needs_tls"
    assert told("http://127.0.0.1:9/v1") == "remote_unreachable"


@pytest.mark.usefixtures("authority")
def test_a_reply_fails_at_once_over_it(serve: ServeTls) -> None:
    import random

    async def ask() -> None:
        server = ServerClient(ServerAddress(f"https://127.0.0.1:{serve(trustme.CA().issue_cert('127.0.0.1'))}/v1"))
        try:
            async with server.stream({"model": "m", "messages": []}):
                pass
        except ConnectionError as error:
            trouble = failed_request(error, "the server", 0, random.Random(1))
            assert (trouble.key, trouble.wait) == ("remote_certificate_untrusted", None)
        else:
            raise AssertionError("it was trusted")
        finally:
            await server.close()

    asyncio.run(ask())
