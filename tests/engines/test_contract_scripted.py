"""The contract suite on the scripted engine, and what is the scripted engine's own."""

from collections.abc import Iterator

import pytest

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.chat.prompt import UserTurn
from magistral_ui.engines.base import Broken, Engine, GenerationRequest, Loading, Ready
from tests.engines.contract import EngineContract, all_events, words
from tests.engines.following import follow
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine


def script(request: GenerationRequest) -> Script:
    turn = request.prompt.turns[-1]
    assert isinstance(turn, UserTurn)
    tokens = min(request.params.max_tokens, 1000)
    pause = [Pause(0.005)] if tokens == 1000 else []
    thoughts: Script = [step for n in range(tokens // 20) for step in (Reasoning(f"{n} "), *pause)]
    return [*thoughts, Answer(f"You said: {turn.text}"), Answer("", 2)]


class TestScriptedEngine(EngineContract):
    """The suite."""

    def ask_long(self, engine: Engine) -> GenerationRequest:
        return self.ask(engine, max_tokens=1000)

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        engine = ScriptedEngine(script)
        yield engine
        engine.close()

    @pytest.fixture
    def closing_engine(self, engine: Engine) -> Engine:
        return engine

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return ScriptedEngine(script, status=Loading())


def test_a_script_s_own_end_is_played() -> None:
    engine = ScriptedEngine([Answer("a"), Failed("out_of_memory", {"device": "cpu"})])
    request = TestScriptedEngine().ask(engine)
    last = all_events(engine.submit(request))[-1]
    assert isinstance(last, Failed)
    assert (last.key, last.values, last.usage.answer_tokens) == ("out_of_memory", {"device": "cpu"}, 1)
    engine = ScriptedEngine([Answer("a"), Finished("length"), Answer("never")])
    events = all_events(engine.submit(request))
    assert words(events) == ("", "a")
    assert isinstance(events[-1], Finished)
    assert events[-1].why == "length"


def test_answer_now_skips_what_is_left_of_the_reasoning() -> None:
    engine = ScriptedEngine([Reasoning("a"), Pause(30), Reasoning("b"), Answer("c")])
    generation = engine.submit(TestScriptedEngine().ask(engine))
    assert next(follow(generation)) == Reasoning("a")
    generation.answer_now()
    assert words(all_events(generation)) == ("a", "c")


def test_loading_is_played_too() -> None:
    engine = ScriptedEngine([], status=Broken("model_not_found", {"model": "x"}))
    engine.retry()
    assert engine.status() == Loading()
    engine.retry()
    assert engine.status() == Loading()
    engine.set_status(Ready(INFO))
    assert engine.status() == Ready(INFO)
