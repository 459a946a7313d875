"""Pictures that unpack to very much, many at once, over the page's own events: memory stays, and others are served."""

import json
import re
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral_ui.chat.image_decoding import MAX_CHILDREN, decoders
from magistral_ui.client import CLIENT
from magistral_ui.ui.chat import Chat
from tests.security.conftest import ROOMY, Browser, Served, serving
from tests.security.test_content import chunk

MANY = 44
"""More than the threads that Gradio answers events with."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = replace(ROOMY, pictures_per_minute=6_000, pictures_per_minute_per_address=6_000)
    with serving(tmp_path_factory.mktemp("page"), limits) as served:
        yield served


def large(number: int, side: int = 5000) -> bytes:
    """A PNG of 25 megapixels and some kB, each number another one."""
    packer, row = zlib.compressobj(1), b"\0" + bytes([number]) * side
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def attached(browser: Browser, data: bytes) -> dict[str, Any]:
    return {"path": browser.upload(data).json()[0], "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}


def message(*files: Any) -> dict[str, Any]:
    return {"text": "look", "files": list(files)}


def value(answer: httpx.Response, part: str) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()[part]


def look(browser: Browser, *files: Any) -> Any:
    return value(browser.act("composer/look", {"number": 1}, message=message(*files)), "attached")


def weigh(browser: Browser, *files: Any, **settings: Any) -> Any:
    return value(browser.act("composer/weigh", message=message(*files), settings=settings), "meter")


@contextmanager
def nobody_decodes() -> Iterator[None]:
    """All children have something to do for somebody else, until this ends."""
    with ExitStack() as held:
        for _ in range(MAX_CHILDREN):
            held.enter_context(decoders().turns.turn("test"))
        yield


def until(true: Callable[[], bool]) -> None:
    """Wait, at most a minute, which only a stuck test takes."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.mark.skipif(sys.platform != "linux", reason="only there the peak of a process can be told")
@pytest.mark.parametrize("visitors", [1, 4])
def test_many_large_images_at_once_take_the_page_no_memory(page: Served, visitors: int) -> None:
    browsers = [page.browser().open() for _ in range(visitors)]
    sent = [(browsers[each % visitors], large(20 * visitors + each)) for each in range(12)]
    files = [(browser, attached(browser, data)) for browser, data in sent]
    del sent
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    with ThreadPoolExecutor(24) as threads:
        weighed = threads.map(lambda each: weigh(*each, picture_side=512), files)
        looked = threads.map(lambda each: look(*each), files)
        assert all(each["limit"] and not each["failure"] for each in weighed)
        assert all(each["attached"] == [{"failure": None, "thumbnail": None}] for each in looked)
    # Decoded in this process, each would take 25 million bytes at the least, and twelve are there at once.
    assert memory("VmHWM") - before < 12 * 25_000_000 / 3
    assert decoders().room.peak <= max(decoders().room.max_bytes, 500_000_000)
    assert decoders().room.held == 0


def test_an_image_is_weighed_without_being_decoded_and_looked_at_once(
    page: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = decoders()._ask
    monkeypatch.setattr(decoders(), "_ask", lambda *each: (asked.append(each[3]), real(*each))[1])
    alice = page.browser().open()
    file = attached(alice, large(1, side=900))
    for _ in range(3):
        assert weigh(alice, file)["use"]["message_pictures"]
    assert asked == []
    for _ in range(3):
        assert look(alice, file)["attached"] == [{"failure": None, "thumbnail": None}]
    assert asked == ["check"]


def test_images_that_wait_hold_up_nobody(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    mallory, alice = page.browser().open(), page.browser().open()
    theirs, hers = attached(mallory, large(2, side=50)), attached(alice, large(3, side=50))
    page.visitors.images._queue._max_tasks = MANY + 2
    order: list[str] = []
    real = Chat.look

    def noted(self: Chat, data: Any, sent: Any) -> Any:
        order.append(CLIENT.get().browser)
        return real(self, data, sent)

    monkeypatch.setattr(Chat, "look", noted)
    with ThreadPoolExecutor(MANY + 1) as threads:
        with nobody_decodes():
            asked = [threads.submit(look, mallory, theirs) for _ in range(MANY)]
            until(lambda: page.visitors.images._queue._reserved.total() == MANY)
            assert alice.say("and apples")["alert"] is None, "whatever needs a thread"
            hers_looked = threads.submit(look, alice, hers)
            until(lambda: page.visitors.images._queue._reserved.total() == MANY + 1)
        assert hers_looked.result(60)["attached"][0]["failure"] is None
        assert all(each.result(60)["attached"] for each in asked)
    assert len(order) == MANY + 1


def test_who_asks_too_much_at_once_is_told_when_to_come_again(page: Served) -> None:
    mallory = page.browser().open()
    files = [attached(mallory, large(each, side=60)) for each in range(4, 9)]
    queue = page.visitors.images._queue
    queue._max_tasks, most = 2, queue._max_tasks
    try:
        with ThreadPoolExecutor(2) as threads, nobody_decodes():
            waiting = [threads.submit(look, mallory, file) for file in files[:2]]
            until(lambda: queue._reserved.total() == 2)
            refused = weigh(mallory, files[2])["failure"]
            assert (refused["key"], refused["values"]["seconds"] > 0) == ("too_many_new_pictures", True)
            assert mallory.say("look", [files[3]])["alert"]["key"] == "too_many_new_pictures"
            assert look(mallory, files[4])["attached"] == [{"failure": None, "thumbnail": None}], "it stays attached"
        assert all(each.result(60)["attached"] for each in waiting)
        assert weigh(mallory, files[2])["failure"] is None, "nothing of this is remembered"
    finally:
        queue._max_tasks = most


def test_new_images_are_counted_by_visitor(tmp_path: Path) -> None:
    with serving(tmp_path, replace(ROOMY, pictures_per_minute=4)) as served:
        mallory, alice = served.browser().open(), served.browser().open()
        files = [attached(mallory, large(each, side=70)) for each in range(9, 12)]
        assert all(weigh(mallory, each)["failure"] is None for each in files[:2] * 3)
        refused = weigh(mallory, files[2])["failure"]
        assert (refused["key"], refused["values"]["seconds"] > 0) == ("too_many_new_pictures", True)
        assert mallory.say("look", [files[2]])["alert"]["key"] == "too_many_new_pictures"
        assert weigh(alice, attached(alice, large(12, side=70)))["failure"] is None
        called = alice.http.post(
            "/gradio_api/call/chat", json={"data": [{"text": "hi", "files": [attached(alice, large(13, side=70))] * 4}]}
        )
        told = alice.http.get(f"/gradio_api/call/chat/{called.json()['event_id']}").text
        assert re.search(r"Try again in \d+ s", told), "programs, too, whose pictures are in the same count"


def test_who_leaves_gives_the_turn_back(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    mallory = page.browser().open()
    file = attached(mallory, large(14, side=80))
    queue, done = page.visitors.images._queue, threading.Event()
    monkeypatch.setattr(Chat, "look", lambda *_: done.set())
    may_end = threading.Event()
    for _ in range(MAX_CHILDREN):
        queue.submit("others", lambda: may_end.wait(60))
    try:
        sent = json.dumps({"data": {"number": 1}, "message": message(file)}).encode()
        cookies = "; ".join(f"{name}={kept}" for name, kept in mallory.http.cookies.items())
        head = f"POST /magistral/act/composer/look HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nCookie: {cookies}\r\n"
        with socket.create_connection(("127.0.0.1", page.port), timeout=60) as line:
            line.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
            until(lambda: bool(queue._waiting))
            (waiting,) = (future for those in queue._waiting.values() for future, _ in those)
        until(waiting.cancelled)
    finally:
        may_end.set()
    until(lambda: not queue._reserved)
    assert not done.is_set(), "nobody decoded for who had gone"
