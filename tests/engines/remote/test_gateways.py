"""Servers behind a gateway: what they tell of themselves, and what is learned from a request that they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from magistral_ui.chat.events import Event, Failed, Finished, Notice
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.engines.base import GenerationRequest, Ready
from magistral_ui.engines.remote import request_errors, server_monitor
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.errors import ParameterRefused, PromptTooLong
from tests.engines.contract import all_events, words
from tests.servers.fake_gateway import FakeGateway, knows_only, strict
from tests.servers.fakes import Json

Connect = Callable[..., RemoteEngine]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_errors, "RETRY_DELAYS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.05)


def ask(engine: RemoteEngine, text: str = "hi", **params: object) -> list[Event]:
    own = engine.card.sampling.changed({"seed": 1, **params})
    return all_events(engine.submit(GenerationRequest(Prompt((), (UserTurn(text),)), own)))


def refused(message: str, status: int = 400, **more: object) -> web.Response:
    return web.json_response({"error": {"message": message, **more}}, status=status)


def notices(events: list[Event]) -> list[Notice]:
    return [event for event in events if isinstance(event, Notice)]


def context(engine: RemoteEngine) -> int:
    status = engine.status()
    assert isinstance(status, Ready)
    return status.info.context_length


def test_a_length_that_nobody_chose_is_not_sent(gateway: FakeGateway, connect: Connect) -> None:
    gateway.refuse = strict(4096)
    engine = connect(gateway.base_url)
    assert words(ask(engine)) == ("", "Fine.")
    assert "max_tokens" not in gateway.requests[0]
    assert len(gateway.requests) == 1


def test_a_length_that_somebody_chose_is_lowered_once_and_said(gateway: FakeGateway, connect: Connect) -> None:
    gateway.refuse = strict(4096)
    engine = connect(gateway.base_url)
    events = ask(engine, max_tokens=20_000)
    assert words(events) == ("", "Fine.")
    assert notices(events) == [Notice("remote_max_tokens_lowered", {"limit": 4058})]
    assert [body["max_tokens"] for body in gateway.requests] == [20_000, 4058]
    assert context(engine) == 4096, "the page knows the context from what the server refused"
    ask(engine, max_tokens=2_000)
    assert gateway.requests[-1]["max_tokens"] == 2_000


def test_a_model_that_writes_less_is_asked_for_less_from_then_on(gateway: FakeGateway, connect: Connect) -> None:
    def at_most(body: Json) -> web.Response | None:
        most, asked = 16_384, body.get("max_tokens", 0)
        told = f"max_tokens is too large: {asked}. This model supports at most {most} completion tokens."
        return refused(told, param="max_tokens") if asked > most else None

    gateway.refuse = at_most
    engine = connect(gateway.base_url)
    for _ in range(2):
        assert words(ask(engine, max_tokens=30_000)) == ("", "Fine.")
    assert [body["max_tokens"] for body in gateway.requests] == [30_000, 16_384, 16_384]


def test_a_server_that_ends_replies_early_by_itself_is_told_how_long_they_may_be(
    gateway: FakeGateway, connect: Connect
) -> None:
    gateway.default_length = 100
    engine = connect(gateway.base_url)
    first = ask(engine, "Count.")
    assert notices(first) == [Notice("remote_max_tokens_lowered", {"limit": 100})]
    second = ask(engine, "Count.")
    assert gateway.requests[-1]["max_tokens"] == 40_960
    assert isinstance(second[-1], Finished)
    assert second[-1].why == "stop"


@pytest.mark.parametrize(
    "known",
    [
        {"max_model_len": 4096},
        {"meta": {"n_ctx": 4096, "n_ctx_train": 131_072}},
        {"context_length": 4096},
        {"max_context_length": 4096},
        {"context_window": 4096, "max_completion_tokens": 1024},
        {"metadata": {"context_length": 4096, "max_tokens": 4096}},
        {"context_length": "4096"},
        {"top_provider": {"context_length": 4096}},
        {"providers": [{"context_length": 8192}, {"context_length": 4096}]},
        {"max_input_tokens": 4096},
    ],
)
def test_the_context_is_what_the_list_says(gateway: FakeGateway, connect: Connect, known: Json) -> None:
    gateway.listed = {"data": [{"id": "some-model", "owned_by": "x", **known}]}
    engine = connect(gateway.base_url)
    assert context(engine) == 4096
    with pytest.raises(PromptTooLong) as error:
        ask(engine, "word " * 20_000)
    assert error.value.message.values["limit"] == 4096
    assert not gateway.requests


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ({"/v1/model/info": {"data": [{"model_name": "some-model", "model_info": {"max_input_tokens": 4096}}]}}, 4096),
        ({"/info": {"model_id": "some-model", "max_total_tokens": 4096, "max_input_tokens": 4000}}, 4096),
    ],
)
def test_the_context_is_what_a_page_beside_the_list_says(
    gateway: FakeGateway, connect: Connect, pages: dict[str, Any], expected: int
) -> None:
    gateway.pages = pages
    assert context(connect(gateway.base_url)) in (expected, 4000)


def test_a_list_without_an_object_around_it_is_read(gateway: FakeGateway, connect: Connect) -> None:
    gateway.listed = [{"id": "some-model", "context_length": 8192, "type": "chat"}]
    assert context(connect(gateway.base_url)) == 8192


def test_fields_that_a_server_does_not_know_are_left_out_one_after_the_other_and_said(
    gateway: FakeGateway, connect: Connect
) -> None:
    gateway.refuse = knows_only("temperature", "top_p", "max_tokens")
    engine = connect(gateway.base_url)
    events = ask(engine)
    assert words(events) == ("", "Fine.")
    assert {notice.values["names"] for notice in notices(events)} == {"stream_options", "seed"}
    assert len(gateway.requests) == 3
    assert notices(ask(engine)) == [], "it is known from then on"
    assert len(gateway.requests) == 4
    status = engine.status()
    assert isinstance(status, Ready)
    assert status.info.missing["seed"] == "missing_parameter", "the page shows it"


def test_what_somebody_chose_is_never_left_out(gateway: FakeGateway, connect: Connect) -> None:
    gateway.refuse = knows_only("stream_options", "seed", "max_tokens", "top_p")
    engine = connect(gateway.base_url)
    last = ask(engine, temperature=0.2)[-1]
    assert isinstance(last, Failed)
    assert last.key == "parameter_not_supported"
    assert last.values["name"] == "temperature"
    assert words(ask(engine)) == ("", "Fine.")
    with pytest.raises(ParameterRefused):
        ask(engine, temperature=0.2)


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (refused("Unrecognized request argument supplied: stream_options"), "stream_options"),
        (refused("Unsupported value: 'temperature' does not support 0.7. Only 1 is supported."), "temperature"),
        (refused("Unknown parameter: 'seed'.", param="seed"), "seed"),
        (refused("openai does not support parameters: ['seed'], for model=x"), "seed"),
        (refused('json: unknown field "seed"'), "seed"),
        (refused("unknown field `seed`, expected one of `model`, `temperature`, `top_p`"), "seed"),
        (web.json_response({"detail": "Unexpected keys in the request: {'seed'}"}, status=422), "seed"),
        (web.json_response({"error": "`top_p` must be > 0.0 and < 0.9"}, status=422), "top_p"),
        (refused("temperature and top_p cannot both be specified for this model."), "top_p"),
    ],
)
def test_the_words_of_many_servers_for_a_field_are_understood(
    gateway: FakeGateway, connect: Connect, answer: web.Response, field: str
) -> None:
    def refuse(body: Json) -> web.Response | None:
        return (
            web.Response(body=answer.body, status=answer.status, content_type="application/json")
            if field in body
            else None
        )

    gateway.refuse = refuse
    assert words(ask(connect(gateway.base_url))) == ("", "Fine.")
    assert set(gateway.requests[0]) - set(gateway.requests[1]) == {field}
    assert len(gateway.requests) == 2


def test_a_field_of_another_name_is_sent_by_that_name(gateway: FakeGateway, connect: Connect) -> None:
    def refuse(body: Json) -> web.Response | None:
        told = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return refused(told, param="max_tokens", code="unsupported_parameter") if "max_tokens" in body else None

    gateway.refuse = refuse
    assert words(ask(connect(gateway.base_url), max_tokens=50)) == ("", "Fine.")
    assert gateway.requests[-1]["max_completion_tokens"] == 50


def test_a_server_that_refuses_for_ever_is_not_asked_for_ever(gateway: FakeGateway, connect: Connect) -> None:
    gateway.refuse = lambda _: refused("I do not like the seed, the top_p, the temperature and the weather.")
    last = ask(connect(gateway.base_url))[-1]
    assert isinstance(last, Failed)
    assert last.key == "remote_refused"
    assert len(gateway.requests) <= 5
