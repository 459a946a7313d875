"""Which replies say how fast a model is: long enough, and alone from beginning to end."""

from types import SimpleNamespace

import pytest

from magistral_ui.chat.events import Answer, Finished
from magistral_ui.engines import generation as module
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.pace_recorder import MIN_MEASURED_TOKENS, PaceRecorder


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds pass whenever somebody looks."""
    now = iter(range(0, 10_000, 2))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(now))))


def end(generation: Generation, tokens: int) -> None:
    """Its first token comes at one look at the clock, its last one and its end at the next."""
    generation.put(Answer("x", tokens))
    generation.put(Finished("stop"))


def test_a_reply_alone_is_measured_and_a_short_one_is_not() -> None:
    found: list[float] = []
    recorder = PaceRecorder(found.append)
    for tokens in (MIN_MEASURED_TOKENS - 1, 101):
        generation = Generation()
        recorder.watch(generation)
        end(generation, tokens)
    assert found == [50.0]


def test_replies_at_the_same_time_say_nothing() -> None:
    found: list[float] = []
    recorder = PaceRecorder(found.append)
    first, second, third = (Generation() for _ in range(3))
    recorder.watch(first)
    recorder.watch(second)
    end(first, 101)
    end(second, 101)
    assert found == []
    recorder.watch(third)
    end(third, 101)
    assert found == [50.0]
