"""What one visitor may take of the machine: tried over HTTP on a page with narrow limits, which it tells beforehand."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from magistral_ui.sessions.limits import SHARED
from tests.security.conftest import Browser, Served, serving
from tests.security.test_visitors_apart import png

NARROW = replace(
    SHARED,
    text_length=100,
    pictures=2,
    messages=6,
    messages_per_minute=600,
    visitors_per_minute_per_address=600,
    requests_per_minute_per_address=600_000,
    replies=2,
    replies_per_address=4,
    unattended_seconds=1,
    upload_mb_per_hour_per_address=2,
)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("narrow"), limits=NARROW) as served:
        yield served


@pytest.fixture
def alice(narrow: Served) -> Browser:
    return narrow.browser().open()


def alert(value: Any) -> str:
    return str((value.get("alert") or {}).get("key"))


def told(value: Any) -> str:
    return json.dumps(value)


def test_the_page_tells_the_limits_beforehand(narrow: Served) -> None:
    config = httpx.get(narrow.url + "/config", trust_env=False, timeout=60).text
    for key in ("limits_message", "limits_reply", "limits_pace", "limits_unattended"):
        assert key in config
    assert "text_length" in config


def test_a_message_and_a_conversation_are_bounded(narrow: Served, alice: Browser) -> None:
    before = len(narrow.engine.requests)
    assert "text_too_long" in told(alice.say("x" * 101))
    paths = [alice.upload(png(colour)).json()[0] for colour in ("red", "green", "blue")]
    files = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
    assert "too_many_pictures" in told(alice.say("look", files))
    assert len(narrow.engine.requests) == before
    for number in range(3):
        assert "conversation_full" not in told(alice.say(f"hello {number}"))
        narrow.visitors.admission.drain(5)
        narrow.visitors.admission.closing = False
        alice.act("turns/ended")
    assert "conversation_full" in told(alice.say("one more"))


@pytest.mark.parametrize("value", [16_385, 10**9, -1, "x", 1e400, None, [1], {"a": 1}])
def test_more_tokens_than_allowed_are_never_asked_for(narrow: Served, alice: Browser, value: object) -> None:
    before = len(narrow.engine.requests)
    for settings in ({"params": {"max_tokens": value}}, {"max_tokens": value}):
        body = json.dumps({"message": {"text": "hi"}, "place": alice.place, "settings": settings})
        alice.http.post("/magistral/act/composer/say", content=body, headers={"Content-Type": "application/json"})
    for request in narrow.engine.requests[before:]:
        assert 0 < request.params.max_tokens <= 16_384
        assert request.params.reasoning_budget is None or request.params.reasoning_budget <= 12_288


def test_replies_at_once_are_counted_by_visitor_and_by_address(narrow: Served) -> None:
    one, two, three = (narrow.browser().open() for _ in range(3))
    running = []
    for visitor in (one, two):
        for _ in range(2):
            assert visitor.say("wait")["live"]
            running.append(narrow.engine.generations[-1])
            visitor.place = visitor.act("turns/new_chat").json()["place"]
        if visitor is one:
            assert "too_many_replies" in told(visitor.say("wait"))
    assert "too_many_replies_from_address" in told(three.say("wait"))
    for generation in running:
        generation.stop()
        assert generation.wait(60)
    assert "too_many_replies" not in told(three.say("hello"))


def test_an_answer_that_nobody_looks_at_ends(narrow: Served, alice: Browser) -> None:
    alice.say("wait")
    assert narrow.engine.generations[-1].wait(60)


def test_uploads_are_counted_by_the_hour_however_they_come(narrow: Served, alice: Browser) -> None:
    big = bytes(900_000)
    codes = [alice.upload(big + bytes([number])).status_code for number in range(4)]
    assert codes[-1] == 429
    refused = alice.upload(big)
    assert int(refused.headers["retry-after"]) > 0
    assert "than is allowed per hour" in refused.text


def test_a_flood_is_refused_politely_and_ends_by_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    # So few a minute that the bucket fills slower than even a busy machine asks.
    limits = replace(NARROW, requests_per_minute_per_address=240)
    with (
        serving(tmp_path_factory.mktemp("flood"), limits=limits) as served,
        httpx.Client(trust_env=False, timeout=60) as client,
    ):
        codes: list[int] = []
        while 429 not in codes and len(codes) < 2_000:
            answer = client.get(served.url + "/gradio_api/app_id")
            codes.append(answer.status_code)
        assert codes[-1] == 429
        assert codes.count(200) >= 100
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get(served.url + "/healthz").status_code == 200
        patience = time.monotonic() + 60
        while client.get(served.url + "/gradio_api/app_id").status_code == 429:
            assert time.monotonic() < patience
            time.sleep(0.05)
