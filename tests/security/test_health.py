"""What whoever runs the app reads: health, metrics and the journal; and what strangers do not."""

import io
import json
import logging
import threading

import httpx
import pytest

from magistral_ui.engines.base import Broken, Loading, Ready
from magistral_ui.json_log import log_event, start_json_log
from tests.scripted_engine import INFO
from tests.security.conftest import Served


def get(page: Served, path: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(page.url + path, headers=named, trust_env=False, timeout=60)


def numbers(page: Served) -> dict[str, float]:
    lines = [each for each in get(page, "/metrics").text.splitlines() if each.startswith("magistral_ui_")]
    return {name: float(value) for name, _, value in (each.rpartition(" ") for each in lines)}


def test_health_is_one_word(page: Served) -> None:
    assert (get(page, "/healthz").status_code, get(page, "/healthz").json()) == (200, {"status": "ready"})
    for status, code, word in ((Loading(), 200, "loading"), (Broken("model_not_found"), 503, "broken")):
        page.engine.set_status(status)
        answer = get(page, "/healthz")
        assert (answer.status_code, answer.json()) == (code, {"status": word})
    page.engine.set_status(Ready(INFO))
    assert get(page, "/healthz", Host="evil.example").status_code == 421
    with httpx.Client(base_url=page.url, trust_env=False, timeout=60) as prober:
        found = prober.head("/healthz")
    assert (found.status_code, found.content) == (200, b"")


def test_metrics_count_requests_replies_and_tokens_and_no_words(page: Served) -> None:
    before = numbers(page)
    alice = page.browser().open()
    alice.say("a-secret-word")
    page.visitors.admission.drain(5)
    page.visitors.admission.closing = False
    after = numbers(page)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grown('magistral_ui_replies_total{reason="stop"}') == 1
    assert grown('magistral_ui_tokens_total{kind="answer"}') == 1
    assert grown("magistral_ui_reply_seconds_count") == 1
    assert grown('magistral_ui_http_requests_total{kind="event",status="200"}') == 2
    assert after["magistral_ui_model_ready"] == 1
    assert "secret" not in get(page, "/metrics").text


def test_replies_are_seen_while_they_are_written(page: Served) -> None:
    alice = page.browser().open()
    live = alice.say("wait")["live"]
    with alice.http.stream("GET", "/magistral/live", headers={"X-Generation": live}) as stream:
        next(stream.iter_lines())
        assert numbers(page)["magistral_ui_replies_written"] >= 1
    alice.act("turns/stop")


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"])
def test_metrics_are_not_for_who_comes_through_a_proxy(page: Served, header: str) -> None:
    assert get(page, "/metrics").status_code == 200
    assert get(page, "/metrics", **{header: "127.0.0.1"}).status_code == 404
    assert get(page, "/metrics", Host="evil.example").status_code == 421


def test_behind_a_proxy_metrics_take_a_token_and_health_takes_nothing(locked: Served) -> None:
    assert get(locked, "/metrics").status_code == 404
    assert get(locked, "/metrics", Authorization="Bearer wrong").status_code == 404
    assert get(locked, "/metrics", Authorization="Bearer").status_code == 404
    assert get(locked, "/metrics", Authorization="Bearer the token").status_code == 200
    assert get(locked, "/healthz").status_code == 200


def test_the_token_is_guessed_as_slowly_as_a_password(locked: Served) -> None:
    guesser, scraper = ({"X-Forwarded-For": f"203.0.113.{last}"} for last in (7, 8))
    for number in range(5):
        assert get(locked, "/metrics", Authorization=f"Bearer {number}", **guesser).status_code == 404
    assert get(locked, "/metrics", Authorization="Bearer the token", **guesser).status_code == 404
    assert get(locked, "/metrics", Authorization="Bearer the token", **scraper).status_code == 200


def test_the_journal_has_numbers_and_no_content(page: Served) -> None:
    lines = io.StringIO()
    end = start_json_log(lines)
    try:
        alice = page.browser().open()
        alice.say("a-secret-word")
        page.visitors.admission.drain(5)
        page.visitors.admission.closing = False
        assert httpx.get(page.url, headers={"Host": "evil.example"}, trust_env=False, timeout=60).status_code == 421
        log_event("something", count=3)
        try:
            raise ValueError("a-secret-word")
        except ValueError:
            logging.getLogger("magistral_ui.ui.page").exception("an event failed")
            logging.getLogger("uvicorn.error").error("somebody said %s", "a-secret-word")
    finally:
        end()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    by_event = {each["event"]: each for each in told}
    assert {"reply_ended", "refused", "something", "an event failed", "log"} <= set(by_event)
    assert by_event["log"]["source"] == "uvicorn.error"
    assert by_event["reply_ended"]["answer"] == 1
    assert by_event["refused"]["status"] == 421
    assert by_event["an event failed"]["error"] == "ValueError"
    assert "test_health.py" in by_event["an event failed"]["at"][0]
    assert "secret" not in lines.getvalue()
    assert alice.place["visitor"] not in lines.getvalue()


def test_an_error_that_nobody_foresaw_is_a_sentence_and_no_content_in_the_log(
    page: Served, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = page.browser().open()

    def broken(*_: object) -> None:
        raise ValueError("a-secret-word")

    monkeypatch.setattr(page.visitors, "begin", broken)
    answer = alice.act("turns/new_chat")
    assert answer.status_code == 500
    assert "Something went wrong" in answer.text
    assert "secret" not in answer.text
    assert "secret" not in "".join(capfd.readouterr())
    assert "an action of the page failed" in caplog.text


def test_what_fails_before_gradio_is_an_answer_of_this_app(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a-secret-word")

    monkeypatch.setattr(page.visitors, "running_reply", broken)
    before = numbers(page)
    answer = get(page, "/magistral/live")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    name = 'magistral_ui_http_requests_total{kind="live",status="500"}'
    assert numbers(page)[name] == before.get(name, 0.0) + 1


def test_who_is_written_when_the_app_ends_is_finished_and_nobody_begins(page: Served) -> None:
    alice, late = page.browser().open(), page.browser().open()
    live = alice.say("wait")["live"]
    ended: list[bool] = []
    closer = threading.Thread(target=lambda: ended.append(page.visitors.admission.drain(60) is None))
    closer.start()
    try:
        while not page.visitors.admission.closing:
            threading.Event().wait(0.01)
        assert get(page, "/healthz").json() == {"status": "closing"}
        assert late.say("me too")["alert"]["key"] == "closing"
        with alice.http.stream("GET", "/magistral/live", headers={"X-Generation": live}) as stream:
            assert stream.status_code == 200
        assert not ended
        alice.act("turns/stop")
        closer.join(60)
        assert ended == [True]
    finally:
        page.visitors.admission.closing = False
