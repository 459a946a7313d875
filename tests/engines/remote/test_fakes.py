"""The contract suite on the fakes of Mistral's API and of LM Studio, and what their schemas ask of a request."""

import time
from collections.abc import Callable, Iterator

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.chat.prompt import Prompt, PromptChoices, Resume, UserTurn, compose
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, Engine, GenerationRequest, Ready
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.errors import ParameterRefused
from tests.engines.contract import EngineContract, all_events, words
from tests.engines.following import follow
from tests.engines.remote.conftest import connected
from tests.servers.fake_lm_studio import FakeLMStudio
from tests.servers.fake_mistral import FakeMistral

Connect = Callable[..., RemoteEngine]


class SlowMistral(FakeMistral):
    pause = 0.005


class SlowLMStudio(FakeLMStudio):
    pause = 0.005


@pytest.fixture(scope="module")
def mistral() -> Iterator[FakeMistral]:
    fake = SlowMistral()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def lm_studio() -> Iterator[FakeLMStudio]:
    fake = SlowLMStudio()
    yield fake
    fake.close()


class OnAFake(EngineContract):
    def ask_long(self, engine: Engine) -> GenerationRequest:
        return self.ask(engine, "Count from 1 to 400.", max_tokens=4000)

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return RemoteEngine(ServerAddress("http://127.0.0.1:9/v1"))


class TestMistral(OnAFake):
    """The suite."""

    @pytest.fixture
    def engine(self, mistral: FakeMistral, connect: Connect) -> Engine:
        return connect(mistral.base_url, mistral.key)

    @pytest.fixture
    def closing_engine(self, mistral: FakeMistral) -> Engine:
        return connected(mistral.base_url, mistral.key)


class TestLMStudio(OnAFake):
    """The suite."""

    @pytest.fixture
    def engine(self, lm_studio: FakeLMStudio, connect: Connect) -> Engine:
        return connect(lm_studio.base_url)

    @pytest.fixture
    def closing_engine(self, lm_studio: FakeLMStudio) -> Engine:
        return connected(lm_studio.base_url)


def conversation() -> Conversation:
    reply = Reply(reasoning="12 plus 30.", answer="It is 42.", finish_reason="stop")
    return Conversation().say("What is 12 + 30?").with_reply(reply).say("And 1 + 1?")


def ask(engine: RemoteEngine, said: Conversation, resume: Resume | None = None, **params: object) -> GenerationRequest:
    prompt = compose(said, engine.card.system(), PromptChoices(), resume)
    return GenerationRequest(prompt, SamplingParams(seed=7, max_tokens=100).changed(params))


def test_mistral_gets_nested_thinking_its_own_seed_and_a_plain_system_prompt(
    mistral: FakeMistral, connect: Connect
) -> None:
    engine = connect(mistral.base_url, mistral.key)
    assert words(all_events(engine.submit(ask(engine, conversation())))) == ("1 plus 1 is 2.", "It is 2.")
    body = mistral.requests[-1]
    thinking, text = body["messages"][-2]["content"]
    assert thinking["thinking"] == [{"type": "text", "text": "12 plus 30."}]
    assert text["text"] == "It is 42."
    assert body["random_seed"] == 7
    assert body["reasoning_effort"] == "high"
    assert not {"seed", "min_p", "stream_options", "reasoning_content"} & set(body)


@pytest.mark.parametrize(("budget", "effort"), [(0, "none"), (512, "high"), (4_096, "high")])
def test_mistral_reads_one_of_its_two_efforts(mistral: FakeMistral, connect: Connect, budget: int, effort: str) -> None:
    engine = connect(mistral.base_url, mistral.key)
    prompt = compose(
        conversation(), engine.card.system(budget=budget), PromptChoices(), None, engine.card.effort(budget)
    )
    params = SamplingParams(seed=7, max_tokens=100, reasoning_budget=budget)
    reasoning, answer = words(all_events(engine.submit(GenerationRequest(prompt, params))))
    assert mistral.requests[-1]["reasoning_effort"] == effort
    assert bool(reasoning) == (effort != "none")
    assert answer == "It is 2."


def test_mistral_s_echo_of_a_beginning_is_not_shown_again(mistral: FakeMistral, connect: Connect) -> None:
    engine = connect(mistral.base_url, mistral.key)
    resume = Resume("12 plus 30 is 42.", True, "So: ")
    reply = words(all_events(engine.submit(ask(engine, Conversation().say("What is 12 + 30?"), resume))))
    assert reply == ("", "It is 42.")
    assert mistral.requests[-1]["messages"][-1]["prefix"] is True


def test_mistral_s_model_sees_and_another_that_cannot_talk_is_not_chosen(
    mistral: FakeMistral, connect: Connect
) -> None:
    engine = connect(mistral.base_url, mistral.key)
    status = engine.status()
    assert isinstance(status, Ready)
    assert status.info.source == "mistral-medium-latest"
    assert engine.card.vision
    assert set(status.info.missing) == {"min_p"}
    with pytest.raises(ParameterRefused) as refused:
        engine.submit(ask(engine, Conversation().say("hi"), min_p=0.1))
    assert refused.value.message.values["name"] == "min_p"


def test_a_wrong_key_is_a_sentence_and_no_reply(mistral: FakeMistral, connect: Connect) -> None:
    status = connect(mistral.base_url, "wrong").status()
    assert status == Broken("remote_key_refused", {"server": mistral.base_url.split("/")[2]})


@pytest.mark.parametrize("separate", [True, False])
def test_lm_studio_s_reasoning_is_found_whatever_its_setting(separate: bool, connect: Connect) -> None:
    fake = FakeLMStudio()
    fake.separate = separate
    try:
        engine = connect(fake.base_url)
        events = all_events(engine.submit(ask(engine, conversation())))
        assert words(events) == ("1 plus 1 is 2.", "It is 2.")
        assert fake.requests[-1]["messages"][-2] == {"role": "assistant", "content": "It is 42."}
        assert fake.requests[-1]["repeat_penalty"] == 1.0
    finally:
        fake.close()


def test_lm_studio_tells_what_it_loaded(lm_studio: FakeLMStudio, connect: Connect) -> None:
    engine = connect(lm_studio.base_url)
    status = engine.status()
    assert isinstance(status, Ready)
    assert (status.info.source, status.info.precision) == ("mistralai/magistral-small-2509", "Q4_K_M")
    assert status.info.context_length == 32_768
    assert engine.card.key == "magistral-small-2509"
    assert status.info.missing["continue"] == "missing_resume"
    assert status.info.missing["min_p"] == "missing_parameter"
    with pytest.raises(ParameterRefused):
        engine.submit(ask(engine, Conversation().say("hi"), reasoning_budget=50))
    assert "without_reasoning" not in status.info.missing
    all_events(engine.submit(ask(engine, Conversation().say("hi"), reasoning_budget=0)))
    measure = engine.measure(Prompt((), (UserTurn("four words are here", message=1),)))
    assert measure.estimated
    assert 3 <= measure.per_message[1] <= 12


def test_stop_closes_the_connection(mistral: FakeMistral, connect: Connect) -> None:
    engine = connect(mistral.base_url, mistral.key)
    before = mistral.ended_early
    generation = engine.submit(ask(engine, Conversation().say("Count.")))
    for event in follow(generation):
        if isinstance(event, Reasoning | Answer):
            generation.stop()
    last = generation.take()[-1].event
    assert isinstance(last, Finished)
    assert last.why == "cancelled"
    assert last.usage.prompt_tokens > 0, "it was sent, though the server had not told how long it was"
    assert last.usage.prompt_estimated
    for _ in range(6000):
        if mistral.ended_early > before:
            break
        time.sleep(0.01)
    assert mistral.ended_early == before + 1


def test_a_request_that_the_schema_forbids_fails_with_the_api_s_own_words(
    mistral: FakeMistral, connect: Connect
) -> None:
    engine = connect(mistral.base_url, mistral.key, dialect="llama.cpp")
    last = all_events(engine.submit(ask(engine, Conversation().say("hi"))))[-1]
    assert isinstance(last, Failed)
    assert last.key == "remote_refused"
    assert "Extra inputs are not permitted" in str(last.values["detail"])
