"""The contract suite on a real llama.cpp server, and what only a real server shows."""

import json
import math
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Event, Failed, Finished, Notice, Prefilling, Reasoning
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.chat.prompt import PromptChoices, Resume, compose
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, Engine, GenerationRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.remote import request_errors
from magistral_ui.engines.remote.completion_body import ImageUrls, body_of
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.errors import PromptTooLong
from magistral_ui.ui.asset_files import ASSETS
from tests.engines.contract import EngineContract, all_events, words
from tests.engines.following import follow
from tests.engines.local.one_row_sampler import candidates
from tests.engines.remote.conftest import connected, start_llama_cpp
from tests.servers.processes import ServerProcess

SUM = "What is 487 + 265?"
THOUGHTS = (
    "487+265\n487+265, from the right:\n7+5=12, write 2, carry 1\n8+6+1=15, write 5, carry 1\n4+2+1=7, write 7\nSo 752."
)
ANSWER = "487 + 265 = **752**"
CUT = THOUGHTS.index("8+6")  # between two tokens


@pytest.fixture(scope="module")
def shared(llama_cpp: ServerProcess) -> Iterator[RemoteEngine]:
    engine = connected(llama_cpp.base_url)
    yield engine
    engine.close()


class TestLlamaCpp(EngineContract):
    """The suite."""

    def ask_long(self, engine: Engine) -> GenerationRequest:
        return self.ask(engine, "Count from 1 to 200.", max_tokens=4000)

    @pytest.fixture
    def engine(self, shared: RemoteEngine) -> Engine:
        return shared

    @pytest.fixture
    def closing_engine(self, llama_cpp: ServerProcess) -> Engine:
        return connected(llama_cpp.base_url)

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return RemoteEngine(ServerAddress("http://127.0.0.1:9/v1"))


def request(
    engine: RemoteEngine, said: Conversation, resume: Resume | None = None, **params: object
) -> GenerationRequest:
    prompt = compose(said, engine.card.system(), PromptChoices(), resume)
    return GenerationRequest(prompt, SamplingParams(temperature=0.0, seed=1, max_tokens=300).changed(params), "ann")


def ask(engine: RemoteEngine, said: Conversation, resume: Resume | None = None, **params: object) -> list[Event]:
    return all_events(engine.submit(request(engine, said, resume, **params)))


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished), events[-1]
    return events[-1]


def image(name: str) -> ImageFile:
    return read_image((Path(ASSETS) / "examples" / name).read_bytes(), name)


def history(reasoning: str = THOUGHTS) -> Conversation:
    return Conversation().say(SUM).with_reply(Reply(reasoning, ANSWER, finish_reason="stop")).say("And plus 10?")


def test_what_the_server_is_was_detected(shared: RemoteEngine) -> None:
    status = shared.status()
    assert isinstance(status, Ready)
    assert status.info.device.startswith("llama.cpp")
    assert (status.info.context_length, status.info.precision) == (8192, "BF16")
    assert status.info.missing == {}
    assert shared.card.vision
    assert shared.card.demo


def test_it_reasons_and_answers_with_the_tokens_counted(shared: RemoteEngine) -> None:
    events = ask(shared, Conversation().say(SUM))
    assert words(events) == (THOUGHTS, ANSWER)
    usage = finished(events).usage
    assert usage.prompt_tokens == shared.measure(request(shared, Conversation().say(SUM)).prompt).total
    assert usage.completion_tokens == 97
    assert usage.first_token_seconds > 0
    assert any(isinstance(event, Prefilling) for event in events)


def test_earlier_reasoning_and_the_system_prompt_reach_the_model_whole(shared: RemoteEngine) -> None:
    """The server counts as many tokens as the pieces have: nothing is lost, and no mark is spelled out."""
    for said in (history(), history(reasoning="")):
        prompt = request(shared, said).prompt
        events = ask(shared, said)
        assert finished(events).usage.prompt_tokens == shared.measure(prompt).total
        assert "762" in words(events)[1]
    kept, left = (shared.measure(request(shared, said).prompt) for said in (history(), history(reasoning="")))
    assert kept.total - left.total == kept.reasoning[2] > 60
    assert not kept.estimated


def test_the_second_turn_reuses_the_first(shared: RemoteEngine) -> None:
    ask(shared, Conversation().say(SUM))
    assert finished(ask(shared, history())).usage.reused_tokens > 80


def test_pixels_reach_the_model(shared: RemoteEngine) -> None:
    said = Conversation().say("What colour is this?", (image("red-circle.png"),))
    events = ask(shared, said)
    assert "red" in words(events)[1].lower()
    measure = shared.measure(request(shared, said).prompt)
    assert (measure.total, measure.estimated) == (finished(events).usage.prompt_tokens, False)


def test_the_same_seed_gives_the_same_reply_and_another_one_another(shared: RemoteEngine) -> None:
    said = Conversation().say("Tell me about the sea.")
    replies = [words(ask(shared, said, temperature=2.0, top_p=1.0, seed=seed, max_tokens=60)) for seed in (1, 1, 2)]
    assert replies[0] == replies[1] != replies[2]


def test_a_budget_closes_the_reasoning_and_an_answer_follows(shared: RemoteEngine) -> None:
    events = ask(shared, Conversation().say(SUM), reasoning_budget=20)
    reasoning, answer = words(events)
    assert Notice("budget_spent") in events
    assert THOUGHTS.startswith(reasoning)
    assert answer.startswith(("487 + 265 = ", "I had no time to finish."))
    assert finished(events).usage.reasoning_tokens == 20


def test_a_budget_holds_when_the_whole_reply_comes_in_one_read(
    shared: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a small model's does on a busy machine; its end mark is then there before the budget is looked at."""
    stream = ServerClient.stream

    @asynccontextmanager
    async def read_at_once(self: ServerClient, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        async def whole(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            yield b"".join([each async for each in data])

        async with stream(self, body) as data:
            yield whole(data)

    monkeypatch.setattr(ServerClient, "stream", read_at_once)
    events = ask(shared, Conversation().say(SUM), reasoning_budget=20)
    assert Notice("budget_spent") in events
    assert words(events)[1].strip()
    assert finished(events).usage.reasoning_tokens == 20


def test_a_reply_without_reasoning_is_only_its_answer(shared: RemoteEngine) -> None:
    said, choices = Conversation().say(SUM), PromptChoices(instructions="Answer in one line.")
    prompt = compose(said, shared.card.system(budget=0), choices, effort=shared.card.effort(0))
    params = SamplingParams(temperature=0.0, seed=1, max_tokens=100, reasoning_budget=0)
    events = all_events(shared.submit(GenerationRequest(prompt, params)))
    reasoning, answer = words(events)
    assert reasoning == ""
    assert answer.strip()
    assert shared.measure(prompt).total == finished(events).usage.prompt_tokens
    assert shared.measure(prompt).total < shared.measure(request(shared, said).prompt).total


def test_answer_now_closes_the_reasoning_where_it_is(shared: RemoteEngine) -> None:
    generation = shared.submit(request(shared, Conversation().say("Count from 1 to 200."), max_tokens=2000))
    for event in follow(generation):
        if isinstance(event, Reasoning) and event.text:
            generation.answer_now()
    events = list(follow(generation))
    assert words(events)[1].strip()
    assert sum(event == Notice("answered_now") for event in events) <= 1


@pytest.mark.parametrize(
    ("resume", "rest"),
    [
        (Resume(THOUGHTS[:CUT], False), (THOUGHTS[CUT:], ANSWER)),
        (Resume(THOUGHTS, True), ("", ANSWER)),
        (Resume(THOUGHTS, True, "487 + 265"), ("", " = **752**")),
    ],
)
def test_a_reply_continues_where_it_was_cut(shared: RemoteEngine, resume: Resume, rest: tuple[str, str]) -> None:
    said = Conversation().say(SUM)
    events = ask(shared, said, resume)
    assert words(events) == rest
    assert finished(events).usage.prompt_tokens in range(
        shared.measure(request(shared, said, resume).prompt).total - 1, 999
    )


def test_max_tokens_is_heeded_and_said(shared: RemoteEngine) -> None:
    events = ask(shared, Conversation().say(SUM), max_tokens=12)
    assert finished(events).why == "length"
    assert finished(events).usage.completion_tokens == 12


def test_what_does_not_fit_is_a_sentence(shared: RemoteEngine) -> None:
    """It is refused before it is sent, so that no turn is left that failed."""
    with pytest.raises(PromptTooLong) as refused:
        ask(shared, Conversation().say("word " * 9000))
    assert refused.value.message.values["limit"] == 8192
    assert refused.value.message.values["tokens"] > 9000


def test_stop_frees_the_server(shared: RemoteEngine, llama_cpp: ServerProcess) -> None:
    generation = shared.submit(request(shared, Conversation().say("Count from 1 to 200."), max_tokens=4000))
    next(event for event in follow(generation) if isinstance(event, Reasoning))
    generation.stop()
    assert generation.wait(60)
    for _ in range(6000):
        with urllib.request.urlopen(f"http://127.0.0.1:{llama_cpp.port}/slots", timeout=30) as answer:
            if not any(slot["is_processing"] for slot in json.load(answer)):
                return
        time.sleep(0.01)
    raise AssertionError("the server still works on it")


def test_more_requests_than_slots_wait_for_their_turn(shared: RemoteEngine) -> None:
    """A queued request gets not even headers."""
    generations = [shared.submit(request(shared, Conversation().say(SUM))) for _ in range(12)]
    assert [words(all_events(generation)) for generation in generations] == [(THOUGHTS, ANSWER)] * 12


def begun(engine: RemoteEngine, server: ServerProcess) -> Generation:
    """A reply that has begun and not ended, on a server that was stopped in the middle of it."""
    for _ in range(
        40
    ):  # the model writes some hundred tokens in a quarter of a second, so a busy machine may come too late
        asked = request(engine, Conversation().say("Count from 1 to 200."), max_tokens=4000)
        generation = engine.submit(asked)
        next(event for event in follow(generation) if isinstance(event, Reasoning) and event.text)
        server.send_signal(signal.SIGSTOP)
        if not generation.wait(0.5):
            return generation
        server.send_signal(signal.SIGCONT)
    raise AssertionError("every reply was whole before its server could be stopped")


def test_a_server_killed_in_the_middle_of_an_answer(
    mortal: ServerProcess, gguf_folder: Path, connect: Callable[..., RemoteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is kept, the page knows, and the next reply comes when the server is back."""
    monkeypatch.setattr(request_errors, "RETRY_DELAYS", (0.5,) * 60)
    engine = connect(mortal.base_url)
    generation = begun(engine, mortal)
    mortal.kill()
    events = all_events(generation)
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.key == "remote_cut"
    assert words(events)[0]
    for _ in range(6000):
        if isinstance(engine.status(), Broken):
            break
        time.sleep(0.01)
    assert isinstance(engine.status(), Broken)
    waiting = engine.submit(request(engine, Conversation().say(SUM)))
    again = start_llama_cpp(gguf_folder, mortal.port)
    try:
        assert words(all_events(waiting)) == (THOUGHTS, ANSWER)
        for _ in range(6000):
            if isinstance(engine.status(), Ready):
                break
            time.sleep(0.01)
        assert isinstance(engine.status(), Ready)
    finally:
        again.close()


WRONG_TEMPLATE = """{%- for m in messages %}{%- if m.role == 'user' %}[INST]{{ m.content }}[/INST]
{%- elif m.role == 'assistant' %}{{ m.content if not m.reasoning_content else '' }}{{ eos_token }}{%- endif %}{%- endfor %}"""


def test_a_template_that_loses_answers_is_detected(
    gguf_folder: Path, tmp_path: Path, connect: Callable[..., RemoteEngine]
) -> None:
    for file in ("model.gguf", "mmproj.gguf"):
        (tmp_path / file).symlink_to(gguf_folder / file)
    (tmp_path / "chat_template.jinja").write_text(WRONG_TEMPLATE, encoding="utf-8")
    server = start_llama_cpp(tmp_path)
    try:
        engine = connect(server.base_url)
        profile = engine.profile
        assert profile is not None
        assert profile.dialect.history == "inline"
        assert profile.dialect.resume is None
        assert profile.info.missing["continue"] == "missing_resume"
        assert "762" in words(ask(engine, history()))[1], "the answer of the first turn reached the model"
    finally:
        server.close()


def test_marks_in_the_text_are_read_too(shared: RemoteEngine) -> None:
    """A server started with `--reasoning-format none` spells them out."""
    profile = shared.profile
    assert profile is not None
    spelled = replace(profile, dialect=replace(profile.dialect, always={"reasoning_format": "none"}))
    shared._monitor.profile = spelled
    try:
        assert words(ask(shared, Conversation().say(SUM))) == (THOUGHTS, ANSWER)
    finally:
        shared._monitor.profile = profile


OTHER_TEMPLATE = """{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"""


def test_another_model_is_taken_as_what_it_is(
    gguf_folder: Path, tmp_path: Path, connect: Callable[..., RemoteEngine]
) -> None:
    """Its template has no marks: none are sent, plain answers can be continued, and tokens are counted as the server does."""
    for file in ("model.gguf", "mmproj.gguf"):
        (tmp_path / file).symlink_to(gguf_folder / file)
    (tmp_path / "chat_template.jinja").write_text(OTHER_TEMPLATE, encoding="utf-8")
    server = start_llama_cpp(tmp_path)
    try:
        engine = connect(server.base_url, model="some-model")
        profile = engine.profile
        assert profile is not None
        assert profile.dialect.history == "left_out"
        assert not engine.card.system_prompt()
        assert "continue" not in profile.info.missing
        assert "continue_reasoning" in profile.info.missing
        resumed = Resume(None, False, "The sum is")
        for said, resume in ((Conversation().say("hi"), None), (history(), None), (Conversation().say(SUM), resumed)):
            measure = engine.measure(request(engine, said, resume).prompt)
            assert finished(ask(engine, said, resume, max_tokens=3)).usage.prompt_tokens == measure.total
            assert not measure.estimated
    finally:
        server.close()


def first_token(
    engine: RemoteEngine, server: ServerProcess, said: Conversation, reach: int | None = None, **params: object
) -> dict[int, float]:
    """The probabilities from which the server draws the first token, as one request of ours asks for it."""
    profile = engine.profile
    assert profile is not None
    body = body_of(request(engine, said, **params), profile, ImageUrls(), None, 1)
    body |= {"logprobs": True, "top_logprobs": 20_000, "post_sampling_probs": True, "stream_options": None}
    body |= {"repeat_last_n": reach} if reach else {}
    asked = urllib.request.Request(
        f"{server.base_url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        token = json.load(answer)["choices"][0]["logprobs"]["content"][0]
    return {each["id"]: each["prob"] for each in token["top_probs"] if each["prob"] > 0}


@pytest.fixture(scope="module")
def undecided(
    gguf_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RemoteEngine, ServerProcess]]:
    """A server whose template shows the model something that it does not know, so that many tokens are likely."""
    folder = tmp_path_factory.mktemp("undecided")
    for file in ("model.gguf", "mmproj.gguf"):
        (folder / file).symlink_to(gguf_folder / file)
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")
    server = start_llama_cpp(folder)
    engine = connected(server.base_url, model="some-model")
    yield engine, server
    engine.close()
    server.close()


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 2.0, "top_p": 0.9},
        {"temperature": 2.0, "min_p": 0.02, "top_p": 1.0},
        {"temperature": 1.5, "top_k": 30, "top_p": 0.8},
        {"temperature": 0.7, "top_p": 0.95},
    ],
)
def test_equal_parameters_mean_what_they_mean_in_our_own_engine(
    undecided: tuple[RemoteEngine, ServerProcess], params: dict[str, float]
) -> None:
    """The same tokens may be drawn, as likely: also where the temperature decides what top_p leaves."""
    engine, server = undecided
    said = Conversation().say("Maybe. " * 60 + "Is it so")
    full = first_token(engine, server, said, temperature=1.0, top_p=1.0)
    logits = torch.full((max(full) + 1,), -1e9)
    for token, probability in full.items():
        logits[token] = math.log(probability)
    ids, weights = candidates(logits, SamplingParams().changed(params))
    total = float(weights.sum())
    ours = {int(token): float(weight) / total for token, weight in zip(ids, weights, strict=True) if weight > 0}
    theirs = first_token(engine, server, said, **params)
    assert len(ours) > 1
    assert max(abs(ours.get(token, 0.0) - theirs.get(token, 0.0)) for token in {*ours, *theirs}) < 0.01


def test_the_penalty_sees_the_beginning_of_a_long_prompt(undecided: tuple[RemoteEngine, ServerProcess]) -> None:
    engine, server = undecided
    beginning, rest = "Nine zebras", " Maybe." * 60 + " Is it so"
    said = Conversation().say(beginning + rest)
    early = set(tokens_of(server, beginning)) - set(tokens_of(server, rest))
    free = first_token(engine, server, said, temperature=1.0, top_p=1.0)
    other = max(set(free) - set(tokens_of(server, beginning + rest)), key=lambda token: free[token])

    def odds(**more: float) -> list[float]:
        got = first_token(engine, server, said, temperature=1.0, top_p=1.0, repetition_penalty=1.5, **more)  # type: ignore[arg-type]
        return [
            math.log(got[token] / got[other]) - math.log(free[token] / free[other]) for token in early if token in got
        ]

    assert max(map(abs, odds())) > 0.5
    assert max(map(abs, odds(reach=64))) < 0.25, "which is what a server does by itself"


def tokens_of(server: ServerProcess, text: str) -> list[int]:
    address = f"http://127.0.0.1:{server.port}/tokenize"
    asked = urllib.request.Request(
        address, json.dumps({"content": text}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return list(json.load(answer)["tokens"])
