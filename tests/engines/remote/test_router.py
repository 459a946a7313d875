"""llama.cpp's server as a router of several models: each question bears the model's name, and what is known is that model's."""

import time
from collections.abc import Callable, Iterator

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Event
from magistral_ui.chat.prompt import PromptChoices, Resume, compose
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, GenerationRequest, Loading, Ready
from magistral_ui.engines.remote import server_monitor
from magistral_ui.engines.remote.engine import RemoteEngine
from tests.engines.contract import all_events, words
from tests.servers.fake_llama_router import PLAIN, FakeLlamaRouter, Model, rendered
from tests.waiting import until

Connect = Callable[..., RemoteEngine]
NAME = "Magistral-Small-2509-GGUF:Q4_K_M"


@pytest.fixture
def routers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeLlamaRouter]]:
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.05)
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_WAITING", 0.05)
    made: list[FakeLlamaRouter] = []

    def make(*models: Model, autoload: bool = True) -> FakeLlamaRouter:
        made.append(FakeLlamaRouter(*models, autoload=autoload))
        return made[-1]

    yield make
    for router in made:
        router.close()


def ask(engine: RemoteEngine, said: Conversation, resume: Resume | None = None) -> list[Event]:
    prompt = compose(said, engine.card.system(), PromptChoices(), resume)
    params = SamplingParams(seed=7, max_tokens=100)
    return all_events(engine.submit(GenerationRequest(prompt, params)))


def history() -> Conversation:
    reply = Reply(reasoning="12 plus 30.", answer="It is 42.", finish_reason="stop")
    return Conversation().say("What is 12 + 30?").with_reply(reply).say("And 1 + 1?")


def ready(engine: RemoteEngine) -> Ready:
    status = engine.status()
    assert isinstance(status, Ready), status
    return status


@pytest.mark.parametrize(
    "name", [NAME, "ggml-org/Magistral-Small-2509-GGUF:Q8_0", "my Magistral, größer & 50% off/a?b#c+d"]
)
def test_every_question_bears_the_model_s_name(
    routers: Callable[..., FakeLlamaRouter], connect: Connect, name: str
) -> None:
    other = Model("qwen3-8b", context=4096, vision=False, template=PLAIN)
    router = routers(other, Model(name))
    engine = connect(router.base_url)
    assert words(ask(engine, history())) == ("1 plus 1 is 2.", "It is 2.")
    info = ready(engine).info
    assert (info.context_length, info.source, info.engine) == (16_384, name, "llama.cpp")
    assert info.missing == {}
    assert engine.card.vision
    assert router.requests[-1]["messages"][-2]["reasoning_content"] == "12 plus 30."
    assert {asked for _, asked in router.asked} == {name}
    assert {path for path, _ in router.asked} >= {"/props", "/apply-template", "/tokenize", "/v1/chat/completions"} - {
        "/tokenize"
    }


def test_a_prompt_is_counted_by_the_model_s_own_tokenizer(
    routers: Callable[..., FakeLlamaRouter], connect: Connect
) -> None:
    router = routers(Model("qwen3-8b", template=PLAIN), Model(NAME))
    engine = connect(router.base_url, model="qwen3-8b")
    said = Conversation().say("What is 12 + 30?")
    measure = engine.measure(compose(said, engine.card.system(), PromptChoices()))
    body = {"messages": [{"role": "user", "content": "What is 12 + 30?"}]}
    assert measure.total == len(rendered(router.models_by_name["qwen3-8b"], body))
    assert not measure.estimated
    assert ("/tokenize", "qwen3-8b") in router.asked


def test_the_other_model_has_other_abilities(routers: Callable[..., FakeLlamaRouter], connect: Connect) -> None:
    router = routers(Model(NAME), Model("qwen3-8b", context=4096, vision=False, template=PLAIN))
    engine = connect(router.base_url, model="qwen3-8b")
    info = ready(engine).info
    assert info.context_length == 4096
    assert not engine.card.vision
    assert "keep_reasoning" in info.missing
    assert "continue" not in info.missing, "a plain answer can be gone on with"
    assert "answer_now" in info.missing
    resumed = ask(engine, Conversation().say("What is 12 + 30?"), Resume(None, False, "It is"))
    assert words(resumed)[1]
    assert router.requests[-1]["messages"][-1] == {"role": "assistant", "content": "It is"}
    assert router.requests[-1]["continue_final_message"] is True
    assert {asked for path, asked in router.asked if path == "/v1/chat/completions"} == {"qwen3-8b"}


def test_a_router_without_the_model_names_those_that_it_has(
    routers: Callable[..., FakeLlamaRouter], connect: Connect
) -> None:
    router = routers(Model("one"), Model("two"))
    status = connect(router.base_url, model="three").status()
    assert isinstance(status, Broken)
    assert status.key == "remote_model_unknown"
    assert status.values["models"] == "one, two"
    status = connect(router.base_url).status()
    assert isinstance(status, Broken)
    assert status.key == "remote_model_not_chosen"


def test_an_alias_is_a_name_too(routers: Callable[..., FakeLlamaRouter], connect: Connect) -> None:
    router = routers(Model("one"), Model("two", context=4096, aliases=("second",)))
    engine = connect(router.base_url, model="second")
    assert ready(engine).info.context_length == 4096


@pytest.mark.parametrize("state", ["unloaded", "failed"])
def test_a_model_is_loaded_by_the_first_message_and_not_by_looking_at_it(
    routers: Callable[..., FakeLlamaRouter], connect: Connect, state: str
) -> None:
    model = Model(NAME, context=8192, state=state)
    router = routers(Model("other"), model)
    engine = connect(router.base_url, model=NAME)
    assert ready(engine).info.context_length == 8192, "from the command that it will be started with"
    time.sleep(0.2)
    assert model.state == state
    assert words(ask(engine, history())) == ("1 plus 1 is 2.", "It is 2.")
    assert model.state == "loaded"
    assert router.requests[-1]["messages"][-2]["reasoning_content"] == "12 plus 30.", "its template is known by then"
    until(lambda: isinstance(engine.status(), Ready))
    model.state = "unloaded"
    time.sleep(0.2)
    assert ready(engine).info.missing == {}, "what was known of it is still known"
    assert model.state == "unloaded"


def test_a_model_that_is_being_loaded_is_waited_for(routers: Callable[..., FakeLlamaRouter], connect: Connect) -> None:
    model = Model(NAME, state="loading")
    router = routers(Model("other"), model)
    engine = RemoteEngine(connect(router.base_url, model="other")._server.address, model=NAME)
    engine.start()
    try:
        until(lambda: engine.status() == Loading("server"))
        model.state = "loaded"
        until(lambda: isinstance(engine.status(), Ready))
    finally:
        engine.close()


def test_other_models_may_come_and_go(routers: Callable[..., FakeLlamaRouter], connect: Connect) -> None:
    """Another visitor's model is none of this page's business."""
    other = Model("other", state="unloaded")
    router = routers(other, Model(NAME))
    engine = connect(router.base_url)
    before = engine.profile
    other.state = "loaded"
    time.sleep(0.3)
    assert engine.profile is before
