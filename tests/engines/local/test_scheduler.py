"""Many sequences on one model: the same tokens alone and in company, fresh and with reuse; whoever fails, fails alone."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from magistral_ui.chat.events import Event, Failed, Finished, Notice, Prefilling, Queued
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import AssistantTurn, Prompt, Resume, SystemPart, UserTurn
from magistral_ui.chat.reply import ReplyBuilder
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local import decode_step, exact_attention, kv_cache, running_model
from magistral_ui.engines.local import sequence as sequences
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.local.schedule import SchedulerLimits, SchedulerOutput
from magistral_ui.engines.weights.load_errors import is_out_of_memory
from magistral_ui.engines.weights.loader import Loaded
from magistral_ui.errors import NotReady, PromptTooLong
from magistral_ui.models import memory
from tests.engines.conftest import CPU
from tests.engines.following import follow

SYSTEM = (SystemPart("Think."), SystemPart("so", reasoning=True))


def request(text: str, visitor: str = "ann", images: tuple[ImageFile, ...] = (), **params: object) -> GenerationRequest:
    prompt = Prompt(SYSTEM, (UserTurn(text, images),))
    return GenerationRequest(prompt, SamplingParams(max_tokens=24, seed=1).changed(params), visitor)


def finish(running: RunningModel, *generations: Generation) -> None:
    for _ in range(3000):
        if all(g.ended for g in generations):
            return
        running.scheduler.step()
    raise AssertionError("the scheduler does not come to an end")


def events(generation: Generation) -> list[Event]:
    return list(follow(generation))


def said(generation: Generation) -> tuple[str, str]:
    draft = ReplyBuilder()
    for event in events(generation):
        draft.feed(event)
    return "".join(draft.reasoning), "".join(draft.answer)


def usage(generation: Generation):  # type: ignore[no-untyped-def]
    last = events(generation)[-1]
    assert isinstance(last, Finished)
    return last.usage


def answer(loaded: Loaded, asked: GenerationRequest) -> tuple[str, str]:
    """Alone, on a fresh model."""
    running = RunningModel(loaded, CPU)
    generation = running.submit(asked)
    finish(running, generation)
    return said(generation)


@pytest.mark.parametrize("seed", range(6))
def test_company_changes_nothing(vision_loaded: Loaded, paint: Callable[..., ImageFile], seed: int) -> None:
    """Random visitors join and leave at random steps; each gets what they would get alone."""
    rng = random.Random(seed)
    running = RunningModel(vision_loaded, CPU)
    asked, generations = [], []
    for n in range(10):
        images = tuple(paint(rng.randint(30, 200), rng.randint(30, 200), n) for _ in range(rng.choice([0, 0, 1, 2])))
        text = " ".join(rng.choices(["one", "zwei", "3", "?!"], k=rng.choice([1, 8, 120])))
        asked.append(
            request(
                text,
                rng.choice("abc"),
                images,
                seed=n,
                temperature=rng.choice([0.0, 0.7, 1.3]),
                top_p=rng.choice([0.5, 0.95, 1.0]),
                repetition_penalty=rng.choice([1.0, 1.2]),
                max_tokens=rng.randint(1, 40),
            )
        )
    for each in asked:
        generations.append(running.submit(each))
        for _ in range(rng.randint(0, 6)):
            running.scheduler.step()
        if rng.random() < 0.2:
            left = rng.choice(generations)
            left.stop()
    finish(running, *generations)
    for each, generation in zip(asked, generations, strict=True):
        alone = answer(vision_loaded, each)
        got = said(generation)
        if generation.stop_requested:
            assert "".join(alone).startswith("".join(got).rstrip("\ufffd"))
        else:
            assert got == alone


@pytest.mark.parametrize("seed", range(6))
def test_reuse_changes_nothing(vision_loaded: Loaded, paint: Callable[..., ImageFile], seed: int) -> None:
    """A conversation that grows, is edited, drops reasoning or answers again says what it would say freshly read."""
    rng = random.Random(seed)
    running = RunningModel(vision_loaded, CPU)
    turns: tuple = ()
    reused = 0
    for n in range(6):
        kind = rng.choice(["grow", "grow", "edit", "drop", "again"]) if n else "grow"
        if kind == "edit" and len(turns) > 1:
            at = rng.randrange(0, len(turns), 2)
            turns = (*turns[:at], UserTurn(f"edited {n}", turns[at].images))
        elif kind == "drop":
            turns = tuple(replace(t, reasoning=None) if isinstance(t, AssistantTurn) and t.answer else t for t in turns)
        if not turns or isinstance(turns[-1], AssistantTurn):
            images = (paint(60 + n, 90, n),) if rng.random() < 0.5 else ()
            turns = (*turns, UserTurn(f"say {n} " * rng.choice([1, 20]), images))
        params = SamplingParams(max_tokens=20, seed=n, temperature=rng.choice([0.0, 1.0]))
        generation = running.submit(GenerationRequest(Prompt(SYSTEM, turns), params, "ann"))
        finish(running, generation)
        reasoning, text = said(generation)
        fresh = RunningModel(vision_loaded, CPU)
        fresh.tokenizer = running.tokenizer  # it knows in which tokens earlier replies were written
        alone = fresh.submit(GenerationRequest(Prompt(SYSTEM, turns), params, "ann"))
        finish(fresh, alone)
        assert (reasoning, text) == said(alone)
        reused += usage(generation).reused_tokens
        if reasoning or text:
            turns = (*turns, AssistantTurn(text, reasoning or None))
    assert reused > 40


def test_a_new_turn_pays_for_its_own_tokens(running: RunningModel) -> None:
    first = request("word " * 200)
    generation = running.submit(first)
    finish(running, generation)
    reasoning, text = said(generation)
    turns = (*first.prompt.turns, AssistantTurn(text, reasoning or None), UserTurn("and?"))
    following = GenerationRequest(Prompt(SYSTEM, turns), SamplingParams(max_tokens=2, seed=1), "ann")
    expected = running.measure(following.prompt, "ann")
    second = running.submit(following)
    finish(running, second)
    assert usage(second).reused_tokens == expected.reused > 400
    assert expected.total - expected.reused < 40


def test_visitors_share_only_the_system_prompt(running: RunningModel) -> None:
    secret = request("my secret " * 20, "ann")
    generation = running.submit(secret)
    finish(running, generation)
    other = running.submit(replace(secret, visitor="eve"))
    finish(running, other)
    assert usage(other).reused_tokens <= running.tokenizer.encode(secret.prompt).system
    plain = replace(secret, prompt=Prompt(running.system, secret.prompt.turns))
    for visitor in ("ann", "eve"):
        generation = running.submit(replace(plain, visitor=visitor))
        finish(running, generation)
    common = running.tokenizer.encode(plain.prompt).common
    assert usage(generation).reused_tokens == common > 3


def test_a_branch_does_not_cost_the_longer_one(running: RunningModel) -> None:
    long = request("begin " + "long story " * 100)
    short = request("begin " + "short")
    for each in (long, short, long):
        generation = running.submit(each)
        finish(running, generation)
    assert usage(generation).reused_tokens > 200


@pytest.mark.parametrize("only_the_draw", [False, True])
def test_one_failure_is_one_persons(
    running: RunningModel, monkeypatch: pytest.MonkeyPatch, only_the_draw: bool
) -> None:
    good, bad, alone = request("good", seed=3), request("bad", seed=4), request("good", "bob", seed=3)
    unharmed = running.submit(alone)
    finish(running, unharmed)
    generations = [running.submit(good), running.submit(bad)]
    victim = running.scheduler._waiting[1]
    for _ in range(5):
        running.scheduler.step()
    real = Decoder.__call__

    def broken(self: Decoder, parts: list[DecoderInput]) -> torch.Tensor:
        logits = real(self, parts)  # so that everybody's caches have grown when it breaks
        for part, row in zip(parts, logits, strict=True):
            if victim.entry is not None and part.cache is victim.entry.cache:
                if not only_the_draw:
                    raise RuntimeError("injected")
                row.fill_(torch.nan)
        return logits

    monkeypatch.setattr(Decoder, "__call__", torch.inference_mode()(broken))
    finish(running, *generations)
    assert isinstance(events(generations[1])[-1], Failed)
    assert events(generations[1])[-1].key == "generation_failed"  # type: ignore[union-attr]
    assert said(generations[0]) == said(unharmed)


def test_out_of_memory_evicts_then_refuses(running: RunningModel, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = running.submit(request("idle " * 50, "bob"))
    finish(running, idle)
    held = running.cache.nbytes
    failures = [1]
    real = Decoder.__call__

    def tight(self: Decoder, parts: list[DecoderInput]) -> torch.Tensor:
        if failures[0]:
            failures[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, parts)

    monkeypatch.setattr(Decoder, "__call__", tight)
    saved = running.submit(request("go"))
    finish(running, saved)
    assert isinstance(events(saved)[-1], Finished)
    assert running.cache.nbytes < held + 1 or len(running.cache) == 1
    failures[0] = 10**6
    lost = running.submit(request("again"))
    finish(running, lost)
    assert events(lost)[-1].key == "out_of_memory"  # type: ignore[union-attr]
    failures[0] = 0
    after = running.submit(request("go"))
    finish(running, after)
    assert said(after) == said(saved)


def test_stop_while_reading_and_while_writing(running: RunningModel) -> None:
    reading = running.submit(request("word " * 700))
    running.scheduler.step()
    reading.stop()
    running.scheduler.step()
    assert events(reading)[-1] == Finished("cancelled", usage(reading))
    writing = running.submit(request("hello", max_tokens=1000))
    while not usage_so_far(writing):
        running.scheduler.step()
    written = usage_so_far(writing)
    writing.stop()
    running.scheduler.step()
    assert usage(writing).completion_tokens == written
    waiting = [running.submit(request(f"{n}")) for n in range(running.scheduler._limits.max_sequences + 3)]
    running.scheduler.step()
    waiting[-1].stop()
    running.scheduler.step()
    assert events(waiting[-1])[-1] == Finished("cancelled", usage(waiting[-1]))
    finish(running, *waiting)


def test_the_engine_sets_no_time_of_its_own_for_replies_that_nobody_looks_at(
    running: RunningModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--limits` says how long they go on, and the sessions see to it."""
    left, waiting = (running.submit(request(f"{n}", max_tokens=2000)) for n in range(2))
    running.scheduler.step()
    later = time.monotonic() + 30 * 24 * 3_600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    running.scheduler.step()
    assert left.unattended > 7_200
    assert not left.ended
    assert not waiting.ended
    for generation in (left, waiting):
        generation.stop()
    running.scheduler.step()
    assert left.ended
    assert waiting.ended


def usage_so_far(generation: Generation) -> int:
    return sum(getattr(stamped.event, "tokens", 0) for stamped in generation.take())


def test_the_queue_tells_the_truth(vision_loaded: Loaded) -> None:
    running = RunningModel(vision_loaded, CPU)
    running.scheduler._limits = SchedulerLimits(max_sequences=2)
    first = [running.submit(request(f"a{n}", "ann", max_tokens=30)) for n in range(2)]
    running.scheduler.step()
    waiting = [running.submit(request(f"w{n}", v)) for n, v in enumerate(("ann", "ann", "bob"))]
    assert [g.take()[-1].event for g in waiting] == [Queued(1), Queued(2), Queued(3)]
    first[0].stop()
    running.scheduler.step()
    assert any(isinstance(s.event, Prefilling) for s in waiting[2].take())  # bob has nothing running: he comes first
    assert waiting[0].take()[-1].event == Queued(1)
    finish(running, *first, *waiting)


def test_nobody_moves_back_when_a_sequence_is_preempted(vision_loaded: Loaded) -> None:
    running = RunningModel(vision_loaded, CPU)
    scheduler = running.scheduler
    scheduler._limits = SchedulerLimits(max_sequences=1)
    first = running.submit(request("a", "ann"))
    scheduler.step()
    waiting = [running.submit(request(f"w{n}", "bob")) for n in range(3)]
    scheduler._apply_schedule(SchedulerOutput(cancel=(scheduler._waiting[2],), preempt=tuple(scheduler._running)))
    assert first.take()[-1].event == Queued(1)
    finish(running, first, *waiting)
    told = [[event.position for event in events(each) if isinstance(event, Queued)] for each in waiting]
    assert told == [[1], [2, 1], [3]]


def test_a_long_prompt_delays_others_by_a_chunk(running: RunningModel) -> None:
    writer = running.submit(request("hello", "bob", max_tokens=200, temperature=1.0))
    while not usage_so_far(writer):
        running.scheduler.step()
    reader = running.submit(request("word " * 1500))
    seen = []
    while not usage_so_far(reader):
        before = usage_so_far(writer)
        running.scheduler.step()
        seen.append(usage_so_far(writer) - before if not writer.ended else 1)
    assert len(seen) >= 1500 // running.scheduler._limits.max_batched_tokens
    assert set(seen) == {1}


def test_max_tokens_and_context(running: RunningModel) -> None:
    generation = running.submit(request("x", max_tokens=5, temperature=1.5))
    finish(running, generation)
    last = events(generation)[-1]
    assert last == Finished("length", usage(generation))
    assert usage(generation).completion_tokens == 5
    with pytest.raises(PromptTooLong):
        running.submit(request("word " * 5000))


@pytest.mark.parametrize("cause", ["answer_now", "budget"])
def test_reasoning_is_closed_and_an_answer_follows(vision_loaded: Loaded, cause: str) -> None:
    running = RunningModel(vision_loaded, CPU)
    prompt = Prompt((), (UserTurn("?"),), Resume("", closed=False))
    params = SamplingParams(max_tokens=200, seed=2, reasoning_budget=30 if cause == "budget" else None, temperature=1.2)
    generation = running.submit(GenerationRequest(prompt, params, "ann"))
    for _ in range(20):
        running.scheduler.step()
    if cause == "answer_now":
        generation.answer_now()
    finish(running, generation)
    notices = [e for e in events(generation) if isinstance(e, Notice)]
    assert [n.key for n in notices] == ["answered_now" if cause == "answer_now" else "budget_spent"]
    assert usage(generation).reasoning_tokens <= 31
    assert usage(generation).answer_tokens >= 1


@pytest.mark.parametrize("seed", range(8))
def test_resumed_equals_uninterrupted(vision_loaded: Loaded, seed: int) -> None:
    """Cut by max_tokens anywhere and continued from its own text, a reply says what it would have said, also sampled."""
    rng = random.Random(seed)
    prompt = Prompt(SYSTEM, (UserTurn(f"tell {seed}"),), Resume("", closed=False) if seed % 2 else None)
    params = SamplingParams(temperature=rng.choice([0.0, 1.0]), max_tokens=60, seed=seed, repetition_penalty=1.1)
    whole = answer(vision_loaded, GenerationRequest(prompt, params, "ann"))
    running = RunningModel(vision_loaded, CPU)
    cut = rng.randint(3, 50)
    begun = running.submit(GenerationRequest(prompt, params.changed({"max_tokens": cut}), "ann"))
    finish(running, begun)
    reasoning, text = said(begun)
    if seed % 2:  # a resumed reply is continued by the session as the text of both parts
        ids = running.tokenizer._reply(reasoning, text, closed=bool(text))
        if len(ids) - 1 != cut or "\ufffd" in reasoning + text:
            return  # its text is cut into other tokens than it was written in
    closed = ReplyBuilder()
    for event in events(begun):
        closed.feed(event)
    resume = Resume(reasoning or None, closed=closed.closed or not reasoning, answer=text)
    again = GenerationRequest(replace(prompt, resume=resume), params.changed({"max_tokens": 60 - cut}), "ann")
    rest = running.submit(again)
    finish(running, rest)
    joined = (reasoning + said(rest)[0], text + said(rest)[1])
    if not (text or reasoning).endswith("\ufffd"):  # cut inside a character, whose halves are shown apart
        assert joined == whole
    assert usage(rest).reused_tokens >= len(running.tokenizer.encode(prompt).ids) - 1


def test_answering_again_reads_nothing_again(running: RunningModel) -> None:
    """From the same reasoning: its own tokens are still in the cache."""
    prompt = Prompt(SYSTEM, (UserTurn("why?"),))
    sequence_tokens = running.tokenizer.control_tokens()
    generation = running.submit(
        GenerationRequest(prompt, SamplingParams(max_tokens=60, seed=5, temperature=1.5), "ann")
    )
    sequence = running.scheduler._waiting[0]
    forced = iter([sequence_tokens.opening[0], *[None] * 20, sequence_tokens.closing[0]])
    sequence._control.forced = lambda channel, answer_now: next(forced, None)  # type: ignore[method-assign]
    finish(running, generation)
    reasoning, _ = said(generation)
    again = Prompt(SYSTEM, prompt.turns, Resume(reasoning, closed=True))
    other = running.submit(GenerationRequest(again, SamplingParams(max_tokens=5, seed=6), "ann"))
    finish(running, other)
    assert usage(other).reused_tokens == usage(other).prompt_tokens - 1


def test_the_engine_thread_ends_all(vision_loaded: Loaded) -> None:
    running = RunningModel(vision_loaded, CPU)
    thread = threading.Thread(target=running.run)
    thread.start()
    generations = [running.submit(request("go", max_tokens=2000, temperature=1.5)) for _ in range(3)]
    running.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert all(g.ended for g in generations)
    with pytest.raises(NotReady):
        running.submit(request("late"))


def test_a_stop_that_breaks_loses_nobody_who_comes_in(running: RunningModel, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, other = running.submit(request("a")), running.submit(request("b", "bob", max_tokens=2))

    def full(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(running.scheduler._waiting[0], "finish", full)
    stopped.stop()
    finish(running, stopped, other)
    assert [type(events(each)[-1]) for each in (stopped, other)] == [Failed, Finished]


def test_drafts_that_find_no_page_cost_no_reply(running: RunningModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real, broken = Decoder.__call__, []

    def tight(self: Decoder, parts: list[DecoderInput]) -> torch.Tensor:
        if any(part.wanted > 1 for part in parts):
            broken.append(1)
            raise kv_cache.OutOfPages("injected")
        return real(self, parts)

    generation = running.submit(request("go", max_tokens=8))
    sequence = running.scheduler._waiting[0]
    monkeypatch.setattr(sequence.drafter, "propose", lambda *_: [5])
    monkeypatch.setattr(Decoder, "__call__", tight)
    finish(running, generation)
    assert broken
    assert isinstance(events(generation)[-1], Finished)


def test_memory_is_bounded(vision_loaded: Loaded) -> None:
    running = RunningModel(vision_loaded, CPU)
    running.cache.budget = 8 * 3 * 2 * 2 * 256 * 32 * 4
    for n in range(30):
        generation = running.submit(request(f"visitor {n} " * 30, f"v{n}", max_tokens=3))
        finish(running, generation)
        assert running.cache.nbytes <= running.cache.budget


def test_out_of_memory_is_told_apart() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("x"))


def test_a_request_that_cannot_get_a_cache_fails_alone(running: RunningModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bystander = running.submit(request("go", "bob"))
    for _ in range(4):
        running.scheduler.step()
    real = running.cache.take
    broken = [2]

    def take(visitor: str, keys: list[int]) -> object:
        if visitor == "ann" and broken[0]:
            broken[0] -= 1
            raise torch.OutOfMemoryError("no room")
        return real(visitor, keys)

    monkeypatch.setattr(running.cache, "take", take)
    lost = running.submit(request("go"))
    saved = running.submit(request("go"))
    finish(running, bystander, lost, saved)
    assert events(lost)[-1].key == "out_of_memory"  # type: ignore[union-attr]
    assert isinstance(events(bystander)[-1], Finished)
    assert isinstance(events(saved)[-1], Finished)


def test_making_room_costs_no_reply(running: RunningModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise RuntimeError("no host memory")

    monkeypatch.setattr(running.cache, "give_back", full)
    generations = [running.submit(request("go", v)) for v in ("ann", "bob")]
    finish(running, *generations)
    assert all(isinstance(events(g)[-1], Finished) for g in generations)


def test_running_sequences_stay_within_the_budget(vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came last is set aside and read again; everybody says what they would have said alone."""
    for module in (memory, kv_cache, decode_step, exact_attention, sequences):
        monkeypatch.setattr(module, "PAGE_TOKENS", 64)
    monkeypatch.setattr(running_model, "pages_held", lambda planned, longest: 4)
    running = RunningModel(vision_loaded, CPU)
    admissions, take = [], running.cache.take
    monkeypatch.setattr(running.cache, "take", lambda *of: admissions.append(of) or take(*of))
    asked = [request(f"say {n}", f"v{n}", max_tokens=70, seed=n) for n in range(5)]
    generations = [running.submit(each) for each in asked]
    finish(running, *generations)
    assert len(admissions) > len(asked)  # somebody came in twice
    for each, generation in zip(asked, generations, strict=True):
        assert said(generation) == answer(vision_loaded, each)


def test_a_resumed_reply_keeps_to_its_budget(vision_loaded: Loaded) -> None:
    prompt = Prompt((), (UserTurn("?"),), Resume("", closed=False))
    running = RunningModel(vision_loaded, CPU)
    params = SamplingParams(max_tokens=20, seed=2, temperature=1.2)
    begun = running.submit(GenerationRequest(prompt, params, "ann"))
    finish(running, begun)
    reasoning, _ = said(begun)
    resumed = replace(prompt, resume=Resume(reasoning, closed=False))
    tokens = len(running.tokenizer._text(reasoning)) + 1
    rest = running.submit(
        GenerationRequest(resumed, params.changed({"max_tokens": 200, "reasoning_budget": 30}), "ann")
    )
    finish(running, rest)
    assert usage(rest).reasoning_tokens == max(0, 30 - tokens) + 1
    assert usage(rest).answer_tokens > 0


def test_forgetting_a_visitor_leaves_nothing(running: RunningModel) -> None:
    generation = running.submit(request("secret " * 30))
    running.scheduler.step()
    running.forget("ann")  # while it is being written: it goes when it ends
    finish(running, generation)
    assert running.cache.match("ann", running.tokenizer.encode(request("secret " * 30).prompt).keys) == 0
    assert len(running.cache) == 0
    assert not any(visitor == "ann" for visitor, *_ in running.tokenizer._replies)


def test_a_visitor_who_waits_is_forgotten_once_their_reply_has_ended(running: RunningModel) -> None:
    generation = running.submit(request("secret " * 30))
    running.forget("ann")
    finish(running, generation)
    assert running.cache.match("ann", running.tokenizer.encode(request("secret " * 30).prompt).keys) == 0
    assert not any(visitor == "ann" for visitor, *_ in running.tokenizer._replies)


def test_a_lowered_limit_is_told(running: RunningModel) -> None:
    running.context_length = 60
    generation = running.submit(request("hello", max_tokens=1000, temperature=1.5))
    finish(running, generation)
    assert Notice("max_tokens_lowered", {"limit": usage(generation).completion_tokens}) in events(generation)
