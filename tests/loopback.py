"""What servers of our own on loopback have in common: a free port, answers in JSON, and an end; they decide what is said."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil


def free_port() -> int:
    """A port of this machine that nobody listens on: two runs of the tests beside each other must not choose the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_nothing_is_left(children: Sequence[psutil.Process], port: int) -> None:
    """Of a server that has ended: its `children` have, too, and its port is free."""
    assert not [child for child in children if child.is_running()]
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


class Answering(BaseHTTPRequestHandler):
    """Answers with bytes or JSON, and is silent otherwise."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def say(self, value: object, status: int = 200) -> None:
        """Answer with JSON."""
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer with `body`, of which HEAD gets the length only."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], **told: object) -> Iterator[int]:
    """Serve requests by `handler`, which has `told` as attributes, meanwhile; the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), told))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
