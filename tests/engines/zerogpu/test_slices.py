"""The engine for ZeroGPU, with processes that are really forked: the contract of every engine, and what only slices bring."""

import logging
import os
from collections.abc import Iterator

import pytest

from magistral_ui.chat.events import Answer, Event, Failed, Finished, Notice, Prefilling, Queued, Reasoning
from magistral_ui.engines.base import Engine, GenerationRequest
from magistral_ui.engines.local.engine import LocalEngine
from magistral_ui.engines.zerogpu.engine import ZeroGPUEngine, gpu_refusal
from magistral_ui.engines.zerogpu.slices import MAX_SLICE_SECONDS, MIN_SLICE_SECONDS, SliceEstimate
from tests.engines.contract import EngineContract, all_events, words
from tests.engines.following import follow
from tests.engines.test_contract_local import loaded
from tests.engines.zerogpu.forking import Lender, Refused

QUOTA = Refused(
    "ZeroGPU quota exceeded",
    "You have exceeded your free ZeroGPU quota (60s requested vs. 0s left). Try again in 3:21:09. ",
)
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def lender() -> Lender:
    return Lender()


def opened(lender: Lender, tokens: int | None = None) -> ZeroGPUEngine:
    engine = ZeroGPUEngine("demo", decorate=lender, tokens_a_slice=tokens)
    engine.start()
    return engine


@pytest.fixture
def engine(lender: Lender) -> Iterator[ZeroGPUEngine]:
    made = opened(lender)
    yield made
    made.close()


@pytest.fixture
def short(lender: Lender) -> Iterator[ZeroGPUEngine]:
    """Slices of nine tokens."""
    made = opened(lender, 9)
    yield made
    made.close()


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEngine]:
    """Writes each reply in one piece."""
    made = loaded()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Engine]:
    made = opened(Lender())
    yield made
    made.close()


class TestZeroGPUEngine(EngineContract):
    """The suite."""

    def ask_long(self, engine: Engine) -> GenerationRequest:
        return self.ask(engine, "Count from 1 to 200.", max_tokens=4000)

    @pytest.fixture
    def engine(self, shared: Engine) -> Engine:
        return shared

    @pytest.fixture
    def closing_engine(self) -> Engine:
        return opened(Lender())

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return ZeroGPUEngine("demo", decorate=Lender())


ask = EngineContract().ask


def texts(events: list[Event]) -> list[tuple[type, str, int]]:
    return [(type(each), each.text, each.tokens) for each in events if isinstance(each, Reasoning | Answer)]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.9, "top_p": 0.9, "seed": 5},
        {"repetition_penalty": 1.2},
        {"reasoning_budget": 20},
        {"reasoning_budget": 0},
        {"max_tokens": 30},
    ],
)
def test_a_reply_in_slices_is_the_reply_in_one_piece(
    lender: Lender, short: ZeroGPUEngine, local: LocalEngine, params: dict[str, object]
) -> None:
    whole = all_events(local.submit(ask(local, **params)))
    sliced = all_events(short.submit(ask(short, **params)))
    assert texts(sliced) == texts(whole)
    assert [e for e in sliced if isinstance(e, Notice)] == [e for e in whole if isinstance(e, Notice)]
    first, last = whole[-1], sliced[-1]
    assert isinstance(first, Finished)
    assert isinstance(last, Finished)
    assert last.why == first.why
    assert last.usage.reasoning_tokens == first.usage.reasoning_tokens
    assert last.usage.answer_tokens == first.usage.answer_tokens
    written = last.usage.reasoning_tokens + last.usage.answer_tokens
    assert len(lender.processes) >= written // 9
    assert len(set(lender.processes)) == len(lender.processes), "a process for each slice"


def test_nothing_relies_on_the_parent_s_threads(lender: Lender, engine: ZeroGPUEngine) -> None:
    assert all_events(engine.submit(ask(engine)))
    assert set(lender.threads) == {1}, "a fork has no other thread than the one that forked"
    assert os.getpid() not in lender.processes


def test_the_next_turn_begins_with_the_reply_s_own_tokens(engine: ZeroGPUEngine) -> None:
    request = ask(engine)
    reasoning, answer = words(all_events(engine.submit(request)))
    assert engine._placed is not None
    ids = engine._placed.tokenizer._replies.get(("someone", reasoning, answer, True))
    assert ids, "the reply is remembered on this side of the fork"


def test_a_slice_is_asked_for_from_the_budgets(lender: Lender, engine: ZeroGPUEngine) -> None:
    all_events(engine.submit(ask(engine, max_tokens=5)))
    assert lender.durations == [MIN_SLICE_SECONDS]
    pace = SliceEstimate(weights=48_000_000_000)
    assert pace.seconds(100, 10) < pace.seconds(100, 500) <= pace.seconds(100, 100_000) == MAX_SLICE_SECONDS
    assert pace.seconds(100_000, 10) > pace.seconds(100, 10)
    opening, token = pace.opening, pace.token
    pace.learn(first=opening + 10, last=opening + 10 + 999 * 0.01, tokens=1_000)
    assert pace.opening == opening + 10, "a process that takes longer to begin is believed at once"
    assert 0.01 < pace.token < token


def test_waiting_is_told_and_then_reading(engine: ZeroGPUEngine) -> None:
    events = all_events(engine.submit(ask(engine)))
    assert isinstance(events[0], Queued)
    assert isinstance(events[1], Prefilling)
    assert sum(isinstance(each, Prefilling) for each in events) < 4


def test_stop_does_not_wait_for_a_gpu(lender: Lender, engine: ZeroGPUEngine) -> None:
    import threading

    lender.gate = threading.Event()
    generation = engine.submit(ask(engine))
    generation.stop()
    assert generation.wait(5)
    lender.gate.set()
    events = all_events(generation)
    assert [type(each) for each in events] == [Queued, Finished]
    assert events[-1].why == "cancelled"  # type: ignore[union-attr]


def test_answer_now_reaches_the_other_process_and_holds_in_the_next(lender: Lender, short: ZeroGPUEngine) -> None:
    generation = short.submit(ask(short))
    for event in follow(generation):
        if isinstance(event, Reasoning) and event.text:
            generation.answer_now()
            break
    events = all_events(generation)
    assert Notice("answered_now") in events
    assert words(events)[1]
    assert sum(isinstance(each, Notice) for each in events) == 1


def test_a_process_that_is_lost_costs_nothing_that_was_told(lender: Lender, engine: ZeroGPUEngine) -> None:
    whole = words(all_events(engine.submit(ask(engine))))
    lender.lose_after = [2]
    events = all_events(engine.submit(ask(engine)))
    assert words(events) == whole
    assert isinstance(events[-1], Finished)
    assert len(lender.processes) >= 3, "one for the first reply, one that was lost, and one that went on"


def test_processes_that_bring_nothing_end_in_words(lender: Lender, engine: ZeroGPUEngine) -> None:
    lender.lose_after = [1] * 9
    events = all_events(engine.submit(ask(engine, "What is 1 + 1?" * 200, max_tokens=50)))
    assert isinstance(events[-1], Failed | Finished)
    assert len(lender.processes) < 9


@pytest.mark.parametrize(
    ("refusal", "key"),
    [
        (QUOTA, "gpu_quota_spent"),
        (Refused("ZeroGPU quota exceeded", "You have exceeded your ZeroGPU runs limit. "), "gpu_quota_gone"),
        (Refused("ZeroGPU quota exceeded", "Space app has reached its GPU limit. Try re-running"), "gpu_quota_gone"),
        (Refused("ZeroGPU quota exceeded", "No GPU was available after 60s. Try re-running"), "gpu_busy"),
        (Refused("ZeroGPU queue timeout", "No GPU was available after 60s"), "gpu_busy"),
        (Refused("ZeroGPU client error", "No GPU was available"), "gpu_busy"),
        (Refused("ZeroGPU client error", "Expired ZeroGPU proxy token"), "gpu_busy"),
        (Refused("ZeroGPU pending credits exceeded", "You have too many ZeroGPU credits"), "gpu_quota_gone"),
        (Refused("ZeroGPU worker error", "RuntimeError"), "generation_failed"),
        (Refused("", "Connection closed by visitor while queueing"), "gpu_busy"),
    ],
)
def test_a_refusal_is_told_in_words(
    lender: Lender, engine: ZeroGPUEngine, caplog: pytest.LogCaptureFixture, refusal: Refused, key: str
) -> None:
    lender.refusals = [refusal]
    with caplog.at_level(logging.CRITICAL):
        events = all_events(engine.submit(ask(engine)))
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.key == key
    assert last.values == ({"wait": "3:21:09"} if key == "gpu_quota_spent" else {})


def test_a_quota_that_ends_in_the_middle_keeps_what_was_written(lender: Lender, short: ZeroGPUEngine) -> None:
    lender.refusals = [None, None, QUOTA]
    events = all_events(short.submit(ask(short)))
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.usage.reasoning_tokens == sum(each.tokens for each in events if isinstance(each, Reasoning)) > 9


def test_what_is_left_of_a_quota_is_used(lender: Lender, engine: ZeroGPUEngine) -> None:
    left = "You have exceeded your free ZeroGPU quota (60s requested vs. 9s left). Try again in 3:21:09. "
    lender.refusals = [Refused("ZeroGPU quota exceeded", left)]
    events = all_events(engine.submit(ask(engine)))
    assert isinstance(events[-1], Finished)
    assert lender.durations[1] == 8


@pytest.mark.parametrize(("costs", "left", "granted"), [(1.0, 9, 8), (1.5, 31, 20), (2.0, 21, 10), (2.0, 9, 4)])
def test_a_second_may_cost_more_than_one_of_the_quota(costs: float, left: int, granted: int) -> None:
    """On a whole card, which large weights get by themselves, the package counts each second twice."""
    requested = round(60 * costs)
    message = (
        f"You have exceeded your free ZeroGPU quota ({requested}s requested vs. {left}s left). Try again in 1:00. "
    )
    found = gpu_refusal(Refused("ZeroGPU quota exceeded", message)).granted(60)
    assert found == granted
    assert found * costs <= left


def test_half_of_what_is_left_is_asked_for_where_a_second_costs_two(lender: Lender, short: ZeroGPUEngine) -> None:
    left = "You have exceeded your free ZeroGPU quota (20s requested vs. 17s left). Try again in 3:21:09. "
    lender.refusals = [Refused("ZeroGPU quota exceeded", left)]
    assert isinstance(all_events(short.submit(ask(short)))[-1], Finished)
    assert lender.durations[0] == 10
    assert lender.durations[1] == 8


def test_a_slice_that_is_longer_than_allowed_is_asked_for_again_shorter(lender: Lender, engine: ZeroGPUEngine) -> None:
    too_long = Refused(
        "ZeroGPU illegal duration", "The requested GPU duration (120s) is larger than the maximum allowed"
    )
    lender.refusals = [too_long]
    events = all_events(engine.submit(ask(engine, max_tokens=4000)))
    assert isinstance(events[-1], Finished)
    assert lender.durations[1] == lender.durations[0] // 2


def test_an_image_is_seen_again_in_each_slice(short: ZeroGPUEngine) -> None:
    import io

    from PIL import Image, ImageDraw

    from magistral_ui.chat.images import read_image
    from magistral_ui.chat.prompt import Prompt, UserTurn
    from magistral_ui.chat.sampling import SamplingParams

    drawn = Image.new("RGB", (200, 160), "white")
    ImageDraw.Draw(drawn).ellipse((40, 20, 160, 140), fill=(220, 30, 30))
    out = io.BytesIO()
    drawn.save(out, "PNG")
    image = read_image(out.getvalue(), "circle.png")
    turn = UserTurn("What is in this picture?", (image,), message=1)
    prompt = Prompt(short.card.system(), (turn,))
    request = GenerationRequest(prompt, SamplingParams(temperature=0.0, max_tokens=200, seed=1), "someone")
    assert "red" in words(all_events(short.submit(request)))[1]
