"""The contract suite on vLLM with the demo model, on the processor; the known gaps are expected failures that say why."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Failed, Notice
from magistral_ui.chat.prompt import Resume
from magistral_ui.engines.base import Engine, GenerationRequest, Ready
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.remote.server_address import ServerAddress
from tests.engines.contract import EngineContract, words
from tests.engines.remote.conftest import connected
from tests.engines.remote.test_llama_cpp import ANSWER, SUM, THOUGHTS, ask, finished, history, image, request
from tests.loopback import free_port
from tests.servers.mistral_files import write_mistral
from tests.servers.processes import ServerProcess

MISTRAL = ("--tokenizer-mode", "mistral", "--config-format", "mistral", "--load-format", "mistral")
FLAGS = (
    *("--served-model-name", "demo", "--host", "127.0.0.1", *MISTRAL, "--reasoning-parser", "mistral"),
    *("--enforce-eager", "--max-model-len", "4096", "--max-num-seqs", "8", "--limit-mm-per-prompt", '{"image": 10}'),
)
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
}
START = 900
"""Seconds that a start may take on a busy machine; 30 on a quiet one."""
RUNNING = os.environ.get("VLLM_BASE_URL")
"""A server that runs already, to be tested instead of one of our own."""


@pytest.fixture(scope="module")
def vllm(servers_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if RUNNING:
        yield RUNNING
        return
    folder, port = tmp_path_factory.mktemp("vllm"), free_port()
    write_mistral(folder)
    python = servers_folder / "vllm" / "bin" / "python"
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    server = ServerProcess([*command, *FLAGS], port, folder / "server.log", ENVIRONMENT)
    try:
        server.wait_until_up("/health", START)
        yield server.base_url
    finally:
        server.close()


@pytest.fixture(scope="module")
def shared(vllm: str) -> Iterator[RemoteEngine]:
    engine = connected(vllm)
    yield engine
    engine.close()


class TestVLLM(EngineContract):
    """The suite."""

    def ask_long(self, engine: Engine) -> GenerationRequest:
        return self.ask(engine, "Count from 1 to 200.", max_tokens=4000)

    @pytest.fixture
    def engine(self, shared: RemoteEngine) -> Engine:
        return shared

    @pytest.fixture
    def closing_engine(self, vllm: str) -> Engine:
        return connected(vllm)

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return RemoteEngine(ServerAddress("http://127.0.0.1:9/v1"))


def test_what_the_server_is_was_detected(shared: RemoteEngine) -> None:
    status, profile = shared.status(), shared.profile
    assert isinstance(status, Ready)
    assert profile is not None
    assert status.info.device.startswith("vLLM 0.")
    assert (profile.dialect.system, status.info.context_length, status.info.missing) == ("chunks", 4096, {})


def test_it_reasons_and_answers_with_the_tokens_counted(shared: RemoteEngine) -> None:
    events = ask(shared, Conversation().say(SUM))
    assert words(events) == (THOUGHTS, ANSWER)
    usage = finished(events).usage
    assert usage.prompt_tokens == shared.measure(request(shared, Conversation().say(SUM)).prompt).total
    assert usage.completion_tokens == 89


def test_earlier_reasoning_and_the_system_prompt_reach_the_model_whole(shared: RemoteEngine) -> None:
    for said in (history(), history(reasoning="")):
        events = ask(shared, said)
        assert finished(events).usage.prompt_tokens == shared.measure(request(shared, said).prompt).total
        assert "762" in words(events)[1]


@pytest.mark.parametrize(
    ("resume", "rest"),
    [
        (Resume(THOUGHTS[:50], False), (THOUGHTS[50:], ANSWER)),
        (Resume(THOUGHTS, True), ("", ANSWER)),
        (Resume(THOUGHTS, True, "487 + 265"), ("", " = **752**")),
    ],
)
def test_a_reply_continues_where_it_was_cut(shared: RemoteEngine, resume: Resume, rest: tuple[str, str]) -> None:
    assert words(ask(shared, Conversation().say(SUM), resume)) == rest


def test_a_budget_closes_the_reasoning_and_an_answer_follows(shared: RemoteEngine) -> None:
    events = ask(shared, Conversation().say(SUM), reasoning_budget=20)
    assert Notice("budget_spent") in events
    assert words(events)[1].startswith(("487 + 265 = ", "I had no time to finish."))
    assert 20 <= finished(events).usage.reasoning_tokens < 30


def test_max_tokens_is_bounded_by_what_fits(shared: RemoteEngine) -> None:
    """vLLM refuses a request that asks for more than its context."""
    assert words(ask(shared, Conversation().say(SUM), max_tokens=100_000)) == (THOUGHTS, ANSWER)


def test_what_does_not_fit_is_a_sentence(shared: RemoteEngine) -> None:
    last = ask(shared, Conversation().say("word " * 3000))[-1]
    assert isinstance(last, Failed)
    assert (last.key, last.values["limit"]) == ("prompt_too_long", 4096)


def test_pixels_reach_the_model(shared: RemoteEngine) -> None:
    said = Conversation().say("What colour is this?", (image("red-circle.png"),))
    assert "red" in words(ask(shared, said))[1].lower()


@pytest.mark.xfail(reason="vLLM tells cached tokens only with --enable-prompt-tokens-details")
def test_reused_tokens_are_told(shared: RemoteEngine) -> None:
    ask(shared, Conversation().say(SUM))
    assert finished(ask(shared, history())).usage.reused_tokens > 0
