"""What one visitor can reach of another: nothing, whatever ids they have got hold of."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from PIL import Image

from tests.security.conftest import Browser, Served


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def told_away(answer: httpx.Response) -> bool:
    """Refused, and without a word of what there is."""
    return answer.status_code in (400, 404) and "said" not in answer.text


@pytest.fixture
def alice(page: Served) -> Browser:
    return page.browser().open()


@pytest.fixture
def mallory(page: Served) -> Browser:
    return page.browser().open()


def test_a_conversation_s_id_is_worth_nothing_without_its_visitor_s_secret(alice: Browser, mallory: Browser) -> None:
    alice.say("my secret")
    stolen = {**mallory.place, "conversation": alice.place["conversation"]}
    for name in ("attach", "ended"):
        answer = mallory.act(f"turns/{name}", place=stolen)
        assert answer.status_code == 200
        assert "my secret" not in answer.text
    for visitor in ({"visitor": ""}, {"visitor": None}, {"visitor": [1]}, {}):
        place = {**visitor, "conversation": stolen["conversation"]}
        assert "my secret" not in mallory.act("turns/attach", place=place).text


def test_a_running_answer_is_read_by_its_own_browser_only(page: Served, alice: Browser, mallory: Browser) -> None:
    live = alice.say("wait")["live"]
    assert live
    headers = {"X-Generation": live}
    assert mallory.http.get("/magistral/live", headers=headers).status_code == 404
    assert httpx.get(page.url + "/magistral/live", headers=headers, trust_env=False, timeout=60).status_code == 404
    with alice.http.stream("GET", "/magistral/live", headers=headers) as stream:
        assert stream.status_code == 200
        assert "hm" in next(stream.iter_lines())
    second_tab = page.browser()
    second_tab.http.cookies = alice.http.cookies
    with second_tab.http.stream("GET", "/magistral/live", headers=headers) as stream:
        assert stream.status_code == 200
    alice.act("turns/stop")


def test_another_visitor_s_answer_cannot_be_stopped(page: Served, alice: Browser, mallory: Browser) -> None:
    alice.say("wait")
    generation = page.engine.generations[-1]
    stolen = {**mallory.place, "conversation": alice.place["conversation"]}
    mallory.act("turns/stop", place=stolen)
    assert not generation.stop_requested
    alice.act("turns/stop")
    assert generation.stop_requested


def test_an_upload_is_seen_and_sent_by_its_own_browser_only(page: Served, alice: Browser, mallory: Browser) -> None:
    (path,) = alice.upload(png()).json()
    assert alice.http.get(f"/gradio_api/file={path}").content == png()
    assert mallory.http.get(f"/gradio_api/file={path}").status_code == 404
    assert httpx.get(f"{page.url}/gradio_api/file={path}", trust_env=False, timeout=60).status_code == 404
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    before = len(page.engine.requests)
    mallory.say("", [file])
    assert len(page.engine.requests) == before
    alice.say("look", [file])
    assert len(page.engine.requests) == before + 1


def test_a_program_s_tool_reads_no_upload_of_somebody_else(page: Served, alice: Browser, mallory: Browser) -> None:
    (path,) = alice.upload(png("blue")).json()
    around = str(Path(path).parent / ".." / Path(path).parent.name / Path(path).name)
    for stolen in (path, around):
        arguments = {"question": "what?", "pictures": [stolen]}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        body["params"] = {"name": "ask_magistral", "arguments": arguments}
        answer = mallory.http.post("/mcp", json=body, headers={"Accept": "application/json, text/event-stream"})
        assert told_away(answer), answer.text


@pytest.mark.parametrize("kind", ["path", "url"])
@pytest.mark.parametrize("target", ["/etc/hostname", "http://127.0.0.1:{port}/healthz", "file:///etc/hostname"])
def test_no_file_of_the_server_and_no_address_is_read(page: Served, alice: Browser, kind: str, target: str) -> None:
    file = {kind: target.format(port=page.port), "meta": {"_type": "gradio.FileData"}}
    before = len(page.engine.requests)
    alice.act("composer/say", message={"text": "", "files": [file]})
    assert len(page.engine.requests) == before


def test_a_session_s_messages_are_for_whoever_began_it(page: Served, alice: Browser, mallory: Browser) -> None:
    body = {"data": [{"text": "wait"}, None], "fn_index": page.numbers["chat"], "session_hash": alice.session}
    event = alice.http.post("/gradio_api/queue/join", json=body).json()["event_id"]
    theirs = {"session_hash": alice.session}
    assert told_away(mallory.http.get("/gradio_api/queue/data", params=theirs))
    assert told_away(mallory.http.get(f"/gradio_api/heartbeat/{alice.session}"))
    cancel = {**theirs, "fn_index": page.numbers["chat"], "event_id": event}
    assert told_away(mallory.http.post("/gradio_api/cancel", json=cancel))
    assert told_away(mallory.http.get(f"/gradio_api/call/chat/{event}"))
    assert alice.http.post("/gradio_api/cancel", json=cancel).status_code == 200


def test_a_call_s_answer_is_for_whoever_made_it(page: Served, alice: Browser, mallory: Browser) -> None:
    event = alice.http.post("/gradio_api/call/chat", json={"data": [{"text": "hello"}, None]}).json()["event_id"]
    assert told_away(mallory.http.get(f"/gradio_api/call/chat/{event}"))
    with alice.http.stream("GET", f"/gradio_api/call/chat/{event}") as stream:
        assert any("you said hello" in line for line in stream.iter_lines())


def test_many_visitors_at_once_get_their_own_answers_only(page: Served) -> None:
    def visit(number: int) -> None:
        client = Client(page.url, verbose=False, httpx_kwargs={"timeout": 60})
        for turn in range(3):
            answer = client.predict(message={"text": f"<{number}-{turn}>"}, parameters=None, api_name="/chat")["answer"]
            assert answer == f"you said <{number}-{turn}>"
        client.close()

    with ThreadPoolExecutor(8) as threads:
        for visited in [threads.submit(visit, number) for number in range(8)]:
            visited.result()


def test_settings_and_the_model_are_the_operator_s(page: Served, alice: Browser, tmp_path: Path) -> None:
    from magistral_ui.engines.base import Broken, Ready
    from tests.scripted_engine import INFO

    page.engine.set_status(Broken("model_not_found", {"model": "/home/operator/models/secret"}))
    try:
        told = alice.act("model/retry").text + alice.act("model/poll").text
        assert "/home/operator" not in told
        assert isinstance(page.engine.status(), Broken), "a stranger has loaded a model"
    finally:
        page.engine.set_status(Ready(INFO))
