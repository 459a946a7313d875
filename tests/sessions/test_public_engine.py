"""What strangers read of a reply that failed: nothing of servers, folders and their words."""

import pytest

from magistral_ui.chat.events import Answer, Event, Failed
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.sessions.limits import SHARED
from magistral_ui.sessions.public_engine import PublicEngine
from tests.scripted_engine import ScriptedEngine

PRIVATE = {"server": "10.0.0.7:8000", "status": 400, "detail": "no such file /srv/models/secret"}


def last(*script: Event) -> tuple[Event, Generation]:
    engine = ScriptedEngine(list(script))
    try:
        request = GenerationRequest(Prompt((), (UserTurn("hi"),)), SamplingParams(seed=1))
        generation = PublicEngine(engine, SHARED).submit(request)
        assert generation.wait(60)
        return generation.take()[-1].event, generation
    finally:
        engine.close()


@pytest.mark.parametrize(
    "key",
    [
        "remote_refused",
        "remote_key_refused",
        "remote_failing",
        "remote_unreachable",
        "remote_error",
        "remote_made_later",
    ],
)
def test_a_servers_address_and_words_are_for_whoever_runs_the_app(key: str) -> None:
    told, generation = last(Answer("part"), Failed(key, PRIVATE))
    assert isinstance(told, Failed)
    assert (told.key, told.values) == ("unavailable", {})
    assert generation.failure == Failed(key, PRIVATE, told.usage), "the numbers at /metrics and the log go by this"


@pytest.mark.parametrize(
    "key", ["remote_busy", "remote_cut", "remote_filtered", "remote_prompt_too_long", "remote_silent"]
)
def test_what_strangers_can_do_something_about_names_the_model(key: str) -> None:
    told, _ = last(Failed(key, PRIVATE))
    assert isinstance(told, Failed)
    assert told.key == key
    assert not {value for value in told.values.values() if isinstance(value, str)} & set(PRIVATE.values())
    assert told.values["server"] == ScriptedEngine([]).card.name


def test_why_llama_cpp_crashed_is_for_whoever_runs_the_app() -> None:
    told, generation = last(Answer("part"), Failed("gguf_file_changed", {"model": "m", "file": "m.gguf"}))
    assert isinstance(told, Failed)
    assert (told.key, told.values) == ("model_process_ended", {})
    assert generation.failure is not None
    assert generation.failure.key == "gguf_file_changed"


def test_numbers_are_told() -> None:
    told, _ = last(Failed("prompt_too_long", {"tokens": 9_000, "limit": 4_096}))
    assert isinstance(told, Failed)
    assert told.values == {"tokens": 9_000, "limit": 4_096}


def test_a_failure_that_was_there_before_is_concealed_too() -> None:
    generation = Generation()
    generation.put(Failed("remote_refused", PRIVATE))
    generation.redact_failures(lambda failed: Failed("unavailable"))
    assert [each.event for each in generation.take()] == [Failed("unavailable")]
