"""Bodies and requests that would take more than they cost to send, or mean two things at once."""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.client import CLIENT, Client
from magistral_ui.web import request_body
from magistral_ui.web.request_body import read_json, signs_in
from magistral_ui.web.uploads import EXTRA_BYTES_PER_FILE, Ownership, TooManyParts, bounded_parts
from tests.security.conftest import ROOMY, Browser, Served, serving
from tests.security.test_visitors_apart import png

QUOTA = 3 * 10**6


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page that takes 3 MB an hour from an address."""
    with serving(tmp_path_factory.mktemp("metered"), limits=replace(ROOMY, upload_mb_per_hour_per_address=3)) as served:
        yield served


@pytest.fixture
def alice(page: Served) -> Browser:
    return page.browser().open()


HEAVY = {
    "lists": "[0]," * 330_000 + "0",
    "empty lists": "[]," * 330_000 + "0",
    "objects": '{"":0},' * 200_000 + "0",
    "numbers": "0," * 600_000 + "0",
    "texts": '"",' * 400_000 + '""',
    "escapes": '"\\"",' * 200_000 + '"\\""',
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY)
def test_a_body_of_too_many_values_is_not_even_parsed(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*_: Any, **__: Any) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr(request_body.json, "loads", parsed)
    with pytest.raises(ValueError, match="too many values"):
        read_json(f'{{"data": [{body}]}}'.encode(), values=18_000)


@pytest.mark.parametrize("text", ['""', '"\\""', '"a,b"', '"\\\\"'])
def test_too_many_texts_are_counted_and_not_even_taken_out(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "JSON_STRINGS", None)
    with pytest.raises(ValueError, match="too many values"):
        read_json(f'{{"data": [{",".join([text] * 37_000)}]}}'.encode(), values=18_000)


@pytest.mark.parametrize(
    "text", ["a, [b], {c} " * 40_000, '\\", [{,' * 50_000, "\n" * 300_000, "\\" * 99_999 + ",,,"], ids=range(4)
)
def test_a_text_may_hold_whatever_parts_values(text: str) -> None:
    body = json.dumps({"data": [text, 1]}).encode()
    assert read_json(body, values=20) == {"data": [text, 1]}


@pytest.mark.parametrize("cut", ['["' + '\\"' * 400_000, '["a' + "," * 900_000, '{"a": "\\' + "x," * 400_000])
def test_a_text_that_does_not_end_is_looked_at_once(cut: str) -> None:
    assert signs_in(request_body.JSON_STRINGS.sub(b"", cut.encode())) == 1
    with pytest.raises(ValueError):
        read_json(cut.encode(), values=20)


@pytest.mark.parametrize(
    "body",
    [
        '{"data": [], "data": [1]}',
        '{"data": [{"path": "a", "path": "b"}]}',
        '{"session_hash": "a", "data": [], "session_hash": "b"}',
        '{"data": [], "d\\u0061ta": [1]}',
    ],
)
def test_a_name_that_stands_twice_in_json_is_refused(page: Served, alice: Browser, body: str) -> None:
    with pytest.raises(ValueError):
        read_json(body.encode())
    headers = {"Content-Type": "application/json"}
    assert alice.http.post("/magistral/act/turns/attach", content=body, headers=headers).status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "session_hash={mine}&session_hash={other}",
        "session_hash={other}&session_hash={mine}",
        "session_hash={mine}&%73ession_hash={other}",
        "session_hash=&session_hash={other}",
        "&".join(f"n{number}=" for number in range(40)),
    ],
)
def test_a_name_that_stands_twice_in_a_query_is_refused(page: Served, alice: Browser, query: str) -> None:
    bob = page.browser().open()
    filled = query.format(mine=alice.session, other=bob.session)
    assert alice.http.get(f"/gradio_api/queue/data?{filled}").status_code == 400


@pytest.mark.parametrize(
    "name", ["Host", "Origin", "Content-Type", "Sec-Fetch-Site", "X-Ticket", "Authorization", "Mcp-Session-Id"]
)
def test_a_header_that_is_checked_stands_once(page: Served, name: str) -> None:
    value = f"127.0.0.1:{page.port}" if name == "Host" else "x"
    with socket.create_connection(("127.0.0.1", page.port), timeout=60) as line:
        host = f"Host: 127.0.0.1:{page.port}\r\n" if name != "Host" else ""
        line.sendall(f"GET /config HTTP/1.1\r\n{host}{name}: {value}\r\n{name}: {value}\r\n\r\n".encode())
        assert line.recv(12)[9:12] in (b"400", b"421")


def form(count: int, size: int = 1) -> tuple[bytes, dict[str, str]]:
    mark = "b" + secrets.token_hex(8)
    part = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{{}}.png"\r\n\r\n{"x" * size}\r\n'
    body = "".join(part.format(number) for number in range(count)) + f"--{mark}--\r\n"
    return body.encode(), {"Content-Type": f"multipart/form-data; boundary={mark}"}


def test_a_form_has_no_more_files_than_a_message(page: Served, alice: Browser) -> None:
    body, headers = form(ROOMY.pictures + 1)
    assert alice.http.post("/gradio_api/upload", content=body, headers=headers).status_code == 413
    body, headers = form(1_000)
    assert alice.http.post("/gradio_api/upload", content=body, headers=headers).status_code == 413
    body, headers = form(ROOMY.pictures)
    assert len(alice.http.post("/gradio_api/upload", content=body, headers=headers).json()) == ROOMY.pictures


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_parts_are_counted_however_the_form_is_cut(size: int) -> None:
    body, headers = form(5)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]

    async def read(most: int) -> int:
        rest = iter(pieces)

        async def receive() -> Any:
            return {"type": "http.request", "body": next(rest), "more_body": True}

        scope = {"type": "http", "headers": [(b"content-type", headers["Content-Type"].encode())]}
        counted = bounded_parts(scope, receive, most)
        for _ in pieces:
            await counted()
        return len(pieces)

    assert asyncio.run(read(5)) == len(pieces)
    with pytest.raises(TooManyParts):
        asyncio.run(read(4))


def test_the_hours_bytes_hold_however_they_are_announced(metered: Served) -> None:
    browser, taken = metered.browser().open(), 0
    for _ in range(12):
        body, headers = form(1, 500_000)
        answer = browser.http.post("/gradio_api/upload", content=iter([body]), headers=headers)  # without a length
        taken += 500_000 if answer.status_code == 200 else 0
    assert answer.status_code == 429
    assert taken + EXTRA_BYTES_PER_FILE <= QUOTA
    assert browser.act("composer/weigh", message={"text": "x" * 20_000}).status_code == 429


@pytest.fixture
def caller() -> Iterator[Callable[[str, str], None]]:
    """Sets who calls, until the test ends."""
    token = CLIENT.set(CLIENT.get())
    yield lambda address, browser: CLIENT.set(Client(address, browser)) and None
    CLIENT.reset(token)


def test_claims_of_one_address_never_flush_those_of_another(caller: Callable[[str, str], None]) -> None:
    claims = Ownership(kept=2_000)
    caller("198.51.100.1", "alice")
    assert claims.claim("session", "a")
    claims.share("file", "picture")
    for number in range(5_000):
        caller("203.0.113.9", f"mallory {number % 700}")
        claims.share("file", f"{number}")
    caller("198.51.100.1", "alice")
    assert claims.owns("session", "a")
    assert claims.owns("file", "picture")
    caller("203.0.113.9", "mallory 699")
    assert not claims.owns("file", "0")
    assert len(claims._owners) <= 2_000


def test_a_claim_goes_with_its_browser_to_another_address(caller: Callable[[str, str], None]) -> None:
    claims = Ownership(kept=10)
    caller("198.51.100.1", "alice")
    assert claims.claim("session", "a")
    caller("198.51.100.2", "alice")
    assert claims.claim("session", "a")
    caller("203.0.113.9", "mallory")
    assert not claims.claim("session", "a")


def test_what_is_left_of_forms_that_did_not_come_whole_is_swept_away(page: Served, alice: Browser) -> None:
    from gradio.utils import get_upload_folder

    folder = Path(get_upload_folder())
    old, new = folder / "tmpold", folder / "tmpnew"
    for each in (old, new):
        each.write_bytes(b"x")
    os.utime(old, (1.0, 1.0))
    assert alice.upload(png()).status_code == 200
    assert not old.exists()
    assert new.exists()
    new.unlink()
