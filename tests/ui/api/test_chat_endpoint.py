"""The endpoint /chat, through the real gradio_client on loopback."""

import asyncio
import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from gradio import processing_utils
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from magistral_ui.chat.events import Answer, Failed, Finished, Notice, Reasoning, Reclassified
from magistral_ui.chat.prompt import AssistantTurn, UserTurn
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.engines.base import Broken, GenerationRequest, Loading, Ready
from magistral_ui.errors import PortInUse
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api.chat_endpoint import answer
from magistral_ui.ui.api.models import ChatRequest, GrowingReply, UsageValue
from magistral_ui.ui.api.requests import read_chat
from magistral_ui.ui.asset_files import ASSETS_URL
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from tests.loopback import free_port
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine


def script(request: GenerationRequest) -> Script:
    turn = request.prompt.turns[-1]
    assert isinstance(turn, UserTurn)
    sizes = [f"{image.width}×{image.height}" for image in turn.images]
    if turn.text == "fail":
        return [Reasoning("hm"), Failed("out_of_memory")]
    if turn.text == "limit":
        return [Notice("max_tokens_lowered", {"limit": 2}), Reasoning("a"), Reasoning("b"), Finished("length")]
    if turn.text == "endless":
        return [Reasoning("hm"), Pause(60), Answer("too late")]
    if turn.text == "long":
        return [piece for _ in range(6) for piece in (Reasoning("word " * 4_000), Pause(0.15))]
    if turn.text == "reclassified":
        return [
            Answer("so "),
            Pause(0.4),
            Answer("5"),
            Pause(0.4),
            Reclassified(),
            Answer("Five"),
            Pause(0.4),
            Answer("."),
        ]
    if turn.text == "slow":
        return [Reasoning("a"), Pause(0.4), Reasoning("b"), Pause(0.4), Answer("c"), Pause(0.4), Answer("d")]
    return [Reasoning("\tx" * 3), Answer(f"{turn.text}|{sizes}|{request.params.temperature}")]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, ScriptedEngine]]:
    engine = ScriptedEngine(script)
    visitors = Visitors(engine)
    page = build_page(engine, visitors)
    url = launch(page, visitors, port=free_port())
    yield url, engine
    engine.close()
    close(page)


@pytest.fixture(scope="module")
def client(served: tuple[str, ScriptedEngine]) -> Iterator[Client]:
    client = Client(served[0], verbose=False, httpx_kwargs={"timeout": 60})
    yield client
    client.close()


def chat(client: Client, message: Any, parameters: Any = None) -> Any:
    return client.predict(message=message, parameters=parameters, api_name="/chat")


def said(message: Any) -> Any:
    """The body of a call in plain HTTP: every argument in its place, the last ones left out."""
    return {"data": [message]}


def number_of(client: Client) -> int:
    """What Gradio calls the endpoint by."""
    return int(next(each["id"] for each in client.config["dependencies"] if each["api_name"] == "chat"))


def image(folder: Path, name: str, kind: str = "PNG", size: tuple[int, int] = (9, 7)) -> Any:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    (folder / name).write_bytes(out.getvalue())
    return handle_file(folder / name)


def test_a_request_waits_for_a_model_that_is_loading(served: tuple[str, ScriptedEngine], client: Client) -> None:
    engine = served[1]
    engine.set_status(Loading("reading", 1, 2))
    threading.Timer(0.5, lambda: engine.set_status(Ready(INFO))).start()
    assert chat(client, {"text": "early", "files": []})["answer"].startswith("early")
    engine.set_status(Broken("model_not_found", {"model": "x"}))
    with pytest.raises(AppError):
        chat(client, {"text": "never", "files": []})
    engine.set_status(Ready(INFO))


def test_all_calls_of_one_client_are_one_party(served: tuple[str, ScriptedEngine], client: Client) -> None:
    visitors = []
    for _ in range(2):
        chat(client, {"text": "hi", "files": []})
        visitors.append(served[1].requests[-1].visitor)
    assert visitors[0] != visitors[1]
    parties = {visitor.partition("/")[0] for visitor in visitors}
    assert len(parties) == 1
    assert parties != {""}


def test_a_question_gets_reasoning_answer_reason_and_usage(client: Client) -> None:
    reply = chat(client, {"text": "hello", "files": []}, {"temperature": 0.0, "seed": 1})
    assert reply["reasoning"] == "\tx\tx\tx"
    assert reply["answer"] == "hello|[]|0.0"
    assert reply["finish_reason"] == "stop"
    assert reply["seed"] == 1
    assert reply["usage"]["reasoning_tokens"] == 1
    assert reply["usage"]["completion_tokens"] == 2
    assert {"prompt_tokens", "reused_tokens", "total_seconds"} <= set(reply["usage"])


def test_parameters_and_files_may_be_left_out(client: Client) -> None:
    assert client.predict(message={"text": "hello"}, api_name="/chat")["answer"] == "hello|[]|0.7"
    assert isinstance(chat(client, {"text": "hello"}, {})["seed"], int)


def test_each_call_is_a_fresh_conversation(served: tuple[str, ScriptedEngine], client: Client) -> None:
    chat(client, {"text": "one"})
    chat(client, {"text": "two"})
    assert len(served[1].requests[-1].prompt.turns) == 1
    assert served[1].requests[-1].visitor != served[1].requests[-2].visitor


def test_images_are_sent(client: Client, tmp_path: Path) -> None:
    files = [image(tmp_path, "a.png"), image(tmp_path, "b.jpg", "JPEG", (5, 6)), image(tmp_path, "c.webp", "WEBP")]
    assert chat(client, {"text": "look", "files": files})["answer"].startswith("look|['9×7', '5×6', '9×7']")
    assert chat(client, {"text": "", "files": files[:1]})["answer"].startswith("|['9×7']")


def test_it_streams_the_same_shape_as_it_grows(client: Client) -> None:
    parts = list(client.submit(message={"text": "slow"}, api_name="/chat"))
    assert len(parts) >= 3
    assert [part["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1]["finish_reason"] == "stop"
    assert (parts[-1]["reasoning"], parts[-1]["answer"]) == ("ab", "cd")
    for earlier, later in pairwise(parts):
        assert set(earlier) == set(later)
        assert later["reasoning"].startswith(earlier["reasoning"])
        assert later["answer"].startswith(earlier["answer"])


@pytest.mark.parametrize("path", ["/etc/hostname", "{url}theme.css", "file:///etc/hostname", "a.png"])
def test_gradio_neither_fetches_nor_reads_what_claims_to_be_a_file(
    served: tuple[str, ScriptedEngine], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """With this mark a value is a file to Gradio, which fetches an address before it asks anybody."""

    async def fetched(url: str, *_: Any, **__: Any) -> str:
        raise AssertionError(f"{url} is fetched")

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetched)
    path = path.format(url=served[0])
    file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    look = {"text": "look", "files": [file]}
    before = [{"role": "user", **look}, {"role": "assistant", "answer": "red"}]
    with httpx.Client(base_url=served[0], trust_env=False, timeout=60) as http:
        for data, told in (
            ([look], "was not uploaded"),
            (["hi", None, before], "was not uploaded"),
            ([file], "must be a string"),
            ([{**file, "meta": "odd"}], "must be a string"),
        ):
            event = http.post("gradio_api/call/chat", json={"data": data}).json()["event_id"]
            assert told in http.get(f"gradio_api/call/chat/{event}").text


def test_only_what_is_new_travels(served: tuple[str, ScriptedEngine], client: Client) -> None:
    job = {**said("long"), "fn_index": number_of(client), "session_hash": "counter"}
    with httpx.Client(base_url=served[0], trust_env=False, timeout=60) as http:
        http.post("gradio_api/queue/join", json=job).raise_for_status()
        lines = http.get("gradio_api/queue/data", params={"session_hash": "counter"}).text.splitlines()
    sizes = [line.count("word ") for line in lines if "process_generating" in line]
    assert len(sizes) > 3
    assert sum(sizes) == 6 * 4_000


def test_the_end_by_length_and_the_notices_are_told(client: Client) -> None:
    reply = chat(client, {"text": "limit"})
    assert reply["finish_reason"] == "length"
    assert reply["notices"] == [{"key": "max_tokens_lowered", "values": {"limit": 2}}]


def test_whoever_cancels_stops_the_reply(served: tuple[str, ScriptedEngine], client: Client) -> None:
    job = client.submit(message={"text": "endless"}, api_name="/chat")
    next(iter(job))
    generation = served[1].generations[-1]
    assert not generation.ended
    job.cancel()
    assert generation.wait(60)
    assert generation.stop_requested


def test_an_answer_that_was_reasoning_becomes_it(client: Client) -> None:
    job = client.submit({"text": "reclassified", "files": []}, api_name="/chat")
    job.result(timeout=60)
    grown = [(each["reasoning"], each["answer"]) for each in job.outputs()]
    assert ("", "so ") in grown
    assert grown[-1] == ("so 5", "Five.")
    assert job.outputs()[-1]["usage"]["reasoning_tokens"] == 2
    after = grown[next(at for at, each in enumerate(grown) if each[0]) :]
    assert all(each[0] == "so 5" for each in after)


@pytest.mark.parametrize(
    ("message", "parameters", "told"),
    [
        ({"text": "", "files": []}, None, "nothing to send"),
        ({"text": "   "}, None, "nothing to send"),
        (None, None, "must be a string"),
        (7, None, "must be a string"),
        ([], None, "must be a string"),
        ({"text": 7}, None, "must be a string"),
        ({"text": "a", "files": "b.png"}, None, "must be a string"),
        ({"text": "a", "files": ["/etc/hostname"]}, None, "was not uploaded"),
        ({"text": "a", "files": [{"path": "/etc/hostname"}]}, None, "was not uploaded"),
        ({"text": "a", "files": [{"path": "http://127.0.0.1/a.png"}]}, None, "nothing is downloaded"),
        ({"text": "a", "system": "b"}, None, "must be a string"),
        ({"text": "a"}, {"warmth": 1}, "no parameter “warmth”"),
        ({"text": "a"}, {"temperature": 3}, "between 0.0 and 2.0"),
        ({"text": "a"}, {"temperature": "hot"}, "must be a number"),
        ({"text": "a"}, {"temperature": None}, "must be a number"),
        ({"text": "a"}, {"temperature": True}, "must be a number"),
        ({"text": "a"}, {"max_tokens": 1.5}, "whole number"),
        ({"text": "a"}, {"max_tokens": 0}, "between 1 and"),
        ({"text": "a"}, {"seed": -1}, "between 0 and"),
        ({"text": "a"}, [1], "must be an object"),
        ({"text": "a"}, "hot", "must be an object"),
        ({"text": "fail"}, None, "out of memory"),
    ],
)
def test_what_cannot_be_used_gets_a_sentence(client: Client, message: Any, parameters: Any, told: str) -> None:
    with pytest.raises(AppError) as refused:
        chat(client, message, parameters)
    assert told in str(refused.value)
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("junk.png", b"no picture at all", "isn’t a readable image"),
        ("notes.txt", b"no picture at all", "isn’t a readable image"),
        ("empty.png", b"", "isn’t a readable image"),
    ],
)
def test_a_file_that_is_no_image_gets_a_sentence(
    client: Client, tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AppError) as refused:
        chat(client, {"text": "look", "files": [handle_file(tmp_path / name)]})
    assert told in str(refused.value)
    assert name in str(refused.value)


def test_a_truncated_image_gets_a_sentence(client: Client, tmp_path: Path) -> None:
    image(tmp_path, "whole.png", size=(300, 300))
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(AppError, match="damaged"):
        chat(client, {"text": "look", "files": [handle_file(tmp_path / "half.png")]})


def test_a_bomb_is_refused_by_its_header(client: Client, tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(AppError, match="million pixels"):
        chat(client, {"text": "look", "files": [handle_file(tmp_path / "bomb.png")]})


def test_too_many_images_get_a_sentence(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="at most 10"):
        chat(client, {"text": "look", "files": [image(tmp_path, "a.png")] * 11})


def test_nothing_but_chat_is_described(served: tuple[str, ScriptedEngine], client: Client) -> None:
    told = httpx.get(served[0] + "gradio_api/info?all_endpoints=true", trust_env=False, timeout=60).json()
    assert (list(told["named_endpoints"]), told["unnamed_endpoints"]) == (["/chat"], {})
    endpoint = told["named_endpoints"]["/chat"]
    assert "Ask the model" in endpoint["description"]
    named = {each["parameter_name"]: each["parameter_has_default"] for each in endpoint["parameters"]}
    assert named == {
        "message": False,
        "parameters": True,
        "history": True,
        "instructions": True,
        "keep_reasoning": True,
    }
    page = client.view_api(return_format="str", print_info=False)
    assert "message: str | dict(text: str, files: list[filepath]) (required)" in page
    assert "finish_reason: Literal['stop', 'length', 'cancelled'] | None" in page
    assert all(f"{name}: " in page for name in PARAMETERS)


def test_a_reply_is_as_it_is_described(client: Client) -> None:
    for text in ("hello", "slow"):
        for reply in client.submit(message=text, api_name="/chat"):
            jsonschema.validate(reply, GrowingReply.model_json_schema())
            assert set(reply) == set(GrowingReply.model_fields)
            assert set(reply["usage"]) == set(UsageValue.model_fields)


def test_what_was_said_before_goes_along(served: tuple[str, ScriptedEngine], client: Client, tmp_path: Path) -> None:
    asked = {"text": "look", "files": [image(tmp_path, "a.png")]}
    reply = chat(client, asked)
    history = [{"role": "user", **asked}, {"role": "assistant", **reply}]
    client.predict(message="and now?", history=history, instructions="Be brief.", api_name="/chat")
    prompt = served[1].requests[-1].prompt
    first, second, third = prompt.turns
    assert isinstance(first, UserTurn)
    assert (first.text, [image.width for image in first.images]) == ("look", [9])
    assert second == AssistantTurn(reply["answer"], reply["reasoning"], 2)
    assert isinstance(third, UserTurn)
    assert third.text == "and now?"
    assert prompt.system[-1].text.endswith("Be brief.")
    client.predict(message="and now?", history=history, keep_reasoning=False, api_name="/chat")
    assert isinstance(turn := served[1].requests[-1].prompt.turns[1], AssistantTurn)
    assert turn.reasoning is None


def test_plain_http_is_enough(served: tuple[str, ScriptedEngine]) -> None:
    with httpx.Client(base_url=served[0], trust_env=False, timeout=60) as http:
        event = http.post("gradio_api/call/chat", json=said("hello")).json()["event_id"]
        lines = http.get(f"gradio_api/call/chat/{event}").text.splitlines()
        assert "event: complete" in lines
        assert json.loads(lines[-2].removeprefix("data: "))[0]["answer"] == "hello|[]|0.7"
        event = http.post("gradio_api/call/chat", json=said(7)).json()["event_id"]
        refused = http.get(f"gradio_api/call/chat/{event}").text
        assert "event: error" in refused
        assert "must be a string" in refused


def test_plain_http_carries_no_more_than_its_rate() -> None:
    """There, every update is the whole reply: one for every word would be the square of its length."""
    engine = ScriptedEngine([Reasoning("hm"), *[Pause(0.15), Reasoning("so")] * 4, Answer("yes")])

    async def updates(rate: float | None) -> list[Any]:
        visitors = Visitors(engine)
        guest = visitors.temporary_session()
        request = ChatRequest.model_validate({"message": "hi"})
        return [each async for each in answer(engine, lambda: read_chat(engine, visitors.limits, request), guest, rate)]

    all_of_them, few = asyncio.run(updates(None)), asyncio.run(updates(1e-6))
    assert len(all_of_them) > len(few) == 2
    assert few[-1]["reasoning"] == all_of_them[-1]["reasoning"] == "hmsosososo"
    assert few[-1]["answer"] == "yes"


def test_a_reply_ends_when_the_reader_of_plain_http_leaves(served: tuple[str, ScriptedEngine]) -> None:
    with httpx.Client(base_url=served[0], trust_env=False, timeout=60) as leaver:
        event = leaver.post("gradio_api/call/chat", json=said("endless")).json()["event_id"]
        with leaver.stream("GET", f"gradio_api/call/chat/{event}") as events:
            next(line for line in events.iter_lines() if "generating" in line)
    generation = served[1].generations[-1]
    assert generation.wait(30)
    assert generation.stop_requested


def test_the_page_and_its_assets_are_served_with_safe_headers(served: tuple[str, ScriptedEngine]) -> None:
    for path in (
        "",
        "magistral/main.js",
        f"{ASSETS_URL}/main.js",
        "magistral/vendor/renderers.js",
        "magistral/vendor/fonts/KaTeX_Main-Regular.woff2",
    ):
        answer = httpx.get(served[0] + path, trust_env=False, timeout=60)
        assert answer.status_code == 200
        assert "img-src 'self'" in answer.headers["content-security-policy"]
    for path in ("magistral/../page.py", "magistral/%2e%2e/page.py", "docs", "openapi.json", "monitoring"):
        assert httpx.get(served[0] + path, trust_env=False, timeout=60).status_code in (403, 404)


def test_a_port_that_is_taken_is_said(served: tuple[str, ScriptedEngine]) -> None:
    port = httpx.URL(served[0]).port
    visitors = Visitors(ScriptedEngine([]))
    with pytest.raises(PortInUse) as taken:
        launch(build_page(ScriptedEngine([]), visitors), visitors, port=port)
    assert taken.value.message.values == {"port": port}


def test_a_reply_ends_when_its_reader_leaves(served: tuple[str, ScriptedEngine], client: Client) -> None:
    job = {**said({"text": "endless"}), "fn_index": number_of(client), "session_hash": "leaver"}
    with httpx.Client(base_url=served[0], trust_env=False, timeout=60) as leaver:
        leaver.post("gradio_api/queue/join", json=job).raise_for_status()
        with leaver.stream("GET", "gradio_api/queue/data", params={"session_hash": "leaver"}) as events:
            next(line for line in events.iter_lines() if "process_generating" in line)
    generation = served[1].generations[-1]
    assert generation.wait(30)
    assert generation.stop_requested
