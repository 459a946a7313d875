"""A real nginx before a page, below a path: found, or installed where that is possible, else what needs it is skipped."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.loopback import free_port

CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 100m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream localhost {{ server 127.0.0.1:{upstream}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location {path}/ {{
      proxy_pass http://localhost{stripped};
      proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 300s;
      {headers}
    }}
  }}
}}
"""
HEADERS = """proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Prefix {path};"""
APPENDING = """proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header Connection "";"""
"""Without a path, and with connections to the page that are used for many requests."""
STARTING = 20.0
"""Seconds in which nginx listens, on a machine that is busy."""


def find() -> str | None:
    """The path of an nginx; Debian keeps it where only the administrator's shell looks."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


def install() -> str | None:
    """The path of an nginx that was just installed."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return None
    ask = [apt, "install", "-y", "--no-install-recommends", "nginx-light"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (ask, [apt, "update"], ask):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
        if command is ask and done.returncode == 0:
            return find()
    return None


@contextmanager
def proxied(
    folder: Path, port: int, upstream: int, path: str, *, strips: bool, headers: str = HEADERS
) -> Iterator[str]:
    """nginx at `port`, which shows the page at `upstream` below `path`; the page's address there.

    `strips`: whether it takes the path off before it hands a request on.
    """
    nginx = find() or install()
    if nginx is None:
        pytest.skip("no nginx here, and none could be installed; Debian, Ubuntu: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    values = {"folder": folder, "port": port, "upstream": upstream, "path": path, "stripped": "/" if strips else ""}
    written = CONFIGURATION.format(**values, headers=headers.format(path=path))
    (folder / "nginx.conf").write_text(written)
    command = [nginx, "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _wait(process, port)
        yield f"http://127.0.0.1:{port}{path}/"
    finally:
        process.terminate()
        process.communicate(timeout=STARTING)


def proxy_port() -> int:
    """A port for `proxied`: the page has to know its public address before."""
    return free_port()


def _wait(process: "subprocess.Popen[str]", port: int) -> None:
    until = time.monotonic() + STARTING
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(
        f"nginx does not listen: {process.communicate(timeout=5) if process.poll() is not None else ''}"
    )
