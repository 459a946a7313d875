"""Attacks with files: pictures that fill the memory, files that fill the disk, bodies that are not what they say they are."""

import io
import re
import secrets
from functools import cache
from typing import Any

import httpx
from PIL import Image

from tests.soak.attacks.attack import Stranger, attack, status_on

UPLOAD = "/gradio_api/upload"
LIMITS = ["413", "429", "503"]


@cache
def image(side: int, format: str = "PNG", colour: str = "red") -> bytes:
    """A small file of `side` × `side` pixels."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, format)
    return out.getvalue()


def upload(stranger: Stranger, data: bytes) -> httpx.Response:
    """Send one file."""
    return stranger.post(UPLOAD, files={"files": ("a.png", data, "image/png")})


def attached(stranger: Stranger, data: bytes, count: int = 1) -> list[dict[str, Any]]:
    """Files as the composer holds them."""
    paths = [upload(stranger, data).raise_for_status().json()[0] for _ in range(count)]
    return [{"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}} for path in paths]


@attack("pictures of 25 megapixels, weighed together", per_minute=90, at_once=12, reaches=["200"], may=LIMITS)
def weigh(stranger: Stranger) -> str:
    files = stranger.once("files", lambda: attached(stranger, image(4_900), 4))
    body = stranger.door.body(message={"text": "", "files": files})
    return str(stranger.post("/magistral/act/composer/weigh", json=body).status_code)


@attack("the same, looked at", per_minute=60, at_once=6, reaches=["200"], may=LIMITS)
def look(stranger: Stranger) -> str:
    files = stranger.once("files", lambda: attached(stranger, image(4_900, "WEBP"), 4))
    body = stranger.door.body({"number": 1}, message={"text": "", "files": files})
    return str(stranger.post("/magistral/act/composer/look", json=body).status_code)


@attack("pictures of more pixels than may be, and what is no picture", per_minute=60, reaches=["refused"], may=LIMITS)
def no_images(stranger: Stranger) -> str:
    data = secrets.choice([image(5_100), b"<svg onload=alert(1)>", b"%PDF-1.4", image(9)[:40]])
    stranger.door.act("composer/say", message={"text": "look", "files": attached(stranger, data)})
    return "refused" if str((stranger.door.shown.get("alert") or {}).get("key")).startswith("picture_") else "taken"


@attack("files of one byte, by the thousand", per_minute=600, at_once=4, reaches=["200"], may=[*LIMITS, "507"])
def one_byte(stranger: Stranger) -> str:
    return str(upload(stranger, secrets.token_bytes(1)).status_code)


def pieces(size: int) -> Any:
    """A form that comes without its length."""
    yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    yield b"x" * size
    yield b"\r\n--b--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@attack("files without a length, past the quota of an hour", per_minute=60, reaches=["200"], may=LIMITS)
def without_length(stranger: Stranger) -> str:
    return str(stranger.post(UPLOAD, content=pieces(8_000_000), headers=FORM).status_code)


@attack("a form of a thousand files", per_minute=30, reaches=["413"], may=["429"])
def many_parts(stranger: Stranger) -> str:
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n'
    return str(stranger.post(UPLOAD, content=part * 1_000 + b"--b--\r\n", headers=FORM).status_code)


ANSWER = re.compile(rb"HTTP/1\.1 \d")


@attack("two lengths for one body, and a request behind it", per_minute=60, reaches=["one answer"])
def two_lengths(stranger: Stranger) -> str:
    lengths = {"Content-Length": "6", "Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    behind = stranger.head("GET /gradio_api/app_id")
    with stranger.line() as line:
        line.sendall(stranger.head("POST /magistral/act/composer/say", **lengths) + b"0\r\n\r\n" + behind)
        told = b""
        while len(ANSWER.findall(told)) < 2 and (
            piece := line.recv(65_536)
        ):  # until the server ends the connection, which it has to
            told += piece
    return "one answer" if len(ANSWER.findall(told)) < 2 else "kept alive"


@attack("another's file", per_minute=60, reaches=["404"], may=["429"])
def anothers_file(stranger: Stranger) -> str:
    path = stranger.once("path", lambda: attached(stranger, image(8))[0]["path"])
    thief = stranger.once("thief", lambda: stranger.sign_in(stranger.name + " too"))
    if stranger.door.http.get(f"/gradio_api/file={path}").status_code != 200:
        return "lost"  # its owner's claim was flushed
    return str(thief.http.get(f"/gradio_api/file={path}").status_code)


@attack("files of the server", per_minute=60, reaches=["400", "404"], may=["429"])
def servers_file(stranger: Stranger) -> str:
    wanted = ["/etc/passwd", "http://127.0.0.1:1/", "../../app.py", "/proc/self/environ", "file:///etc/hostname"]
    return str(stranger.door.http.get(f"/gradio_api/file={secrets.choice(wanted)}").status_code)


@attack("bodies that do not come", per_minute=60, reaches=["ended", "waits"])
def slow_bodies(stranger: Stranger) -> str:
    """Keeps 40 connections on which a body was begun; the oldest has to be given up by then."""
    lines, line = stranger.lines, stranger.line()
    path = secrets.choice([UPLOAD, "/magistral/act/composer/say", "/login"])
    line.sendall(stranger.head(f"POST {path}", **{"Content-Length": "99999"}, **FORM) + b"x")
    lines.append(line)
    if len(lines) <= 40:
        return "waits"
    return "ended" if status_on(lines.pop(0)) in ("cut", "400", "408", "413") else "taken"


@attack("heads of requests that do not come", per_minute=60, reaches=["ended", "waits"])
def slow_heads(stranger: Stranger) -> str:
    """The same with heads."""
    lines, line = stranger.lines, stranger.line()
    line.sendall(b"GET /magis")
    lines.append(line)
    if len(lines) <= 40:
        return "waits"
    return "ended" if status_on(lines.pop(0)) == "cut" else "taken"
