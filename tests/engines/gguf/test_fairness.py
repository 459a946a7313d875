"""A long prompt does not hold up other replies, and one that is stopped frees the model: counted in batches, not in seconds."""

import psutil

from magistral_ui.chat.events import Answer, Prefilling, Reasoning
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.models.gguf_buffers import CPU_BATCH
from tests.engines.contract import all_events
from tests.engines.following import follow
from tests.engines.gguf.demo import ActsAt, ask, finished, loaded, request
from tests.waiting import until

LONG_PROMPT = " ".join(["word"] * 1_200)


def child_seconds(engine: GGUFEngine) -> float:
    running = engine._running
    assert running is not None
    times = psutil.Process(running.server.pid).cpu_times()
    return float(times.user + times.system)


def pieces(generation: Generation) -> int:
    """How often a reply has grown."""
    return sum(isinstance(each.event, Reasoning | Answer) for each in generation.take())


def test_others_write_between_the_batches_of_a_prompt() -> None:
    engine = loaded(slots=2)
    try:
        writing = engine.submit(request(engine, "Count from 1 to 200.", max_tokens=2_000))
        for event in follow(writing):
            if isinstance(event, Reasoning) and event.text:
                break
        before = pieces(writing)
        reading = engine.submit(request(engine, LONG_PROMPT, visitor="bob", max_tokens=1))
        batches = sum(isinstance(event, Prefilling) for event in all_events(reading)) - 1
        assert batches >= 1_200 // CPU_BATCH
        read = pieces(writing)
        # What llama.cpp wrote meanwhile may still be on its way: it has come when there is more.
        until(lambda: writing.ended or pieces(writing) > read, "it writes on")
        assert writing.ended or pieces(writing) - before >= batches - 2
        writing.stop()
        assert writing.wait(60)
    finally:
        engine.close()


def test_a_prompt_that_is_stopped_is_read_no_further() -> None:
    """The only slot is free for another reply after a batch: the child computes a fraction of what the prompt takes."""
    engine = loaded(slots=1)
    try:
        before = child_seconds(engine)
        ask(engine, LONG_PROMPT, visitor="all of it", max_tokens=1)
        whole = child_seconds(engine) - before
        before = child_seconds(engine)
        stopped = ActsAt((Prefilling,), 1, Generation.stop)
        engine.submit(request(engine, LONG_PROMPT, visitor="stopped", max_tokens=1), stopped)
        other = finished(ask(engine, "What is 2 + 3?", visitor="other", max_tokens=1))
        assert other.usage.completion_tokens == 1
        assert finished(all_events(stopped)).why == "cancelled"
        assert child_seconds(engine) - before < 0.7 * whole
    finally:
        engine.close()


def test_stop_ends_a_reply_at_its_token() -> None:
    engine = loaded(slots=1)
    try:
        for count in (1, 2, 30, 513):
            stopped = ActsAt((Reasoning, Answer), count, Generation.stop)
            engine.submit(request(engine, "Count from 1 to 200.", max_tokens=2_000), stopped)
            end = finished(all_events(stopped))
            assert end.why == "cancelled"
            assert count - 1 <= end.usage.completion_tokens <= count  # an event may have no token of its own
    finally:
        engine.close()
