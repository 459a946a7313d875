"""With drafts, replies are the same word for word as without: whoever drafts, whatever control forces, alone and in company."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from magistral_ui.chat.events import Answer, Event, Failed, Finished, Notice, Reasoning, Reclassified
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import Prompt, Resume, SystemPart, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local import decode_step, exact_attention, executor, kv_cache, running_model
from magistral_ui.engines.local import sequence as sequences
from magistral_ui.engines.local.drafting import DraftableSequence, Drafter
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.local.sampling_state import Draw
from magistral_ui.engines.local.scheduler import SPECULATIVE_ROWS
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.weights.loader import Loaded
from magistral_ui.models import memory
from tests.engines.conftest import CPU, load_folder
from tests.engines.following import follow

SYSTEM = (SystemPart("Think."), SystemPart("so", reasoning=True))
TOLD = (Reasoning, Answer, Reclassified, Notice, Failed)
Told = list[Event | tuple[str, int, int]]


def told(generation: Generation) -> Told:
    """All that a reply says, one event for each token, and how it ended; not when."""
    events = list(follow(generation))
    ends = [
        (event.why, event.usage.reasoning_tokens, event.usage.answer_tokens)
        for event in events
        if isinstance(event, Finished)
    ]
    return [*(event for event in events if isinstance(event, TOLD)), *ends]


def text(said: Told) -> str:
    return "".join(event.text for event in said if isinstance(event, Reasoning | Answer))


def submit(running: RunningModel, asked: GenerationRequest, drafter: Drafter | None = None) -> Generation:
    generation = running.submit(asked)
    if drafter is not None:
        running.scheduler._waiting[-1].drafter = drafter
    return generation


def finish(running: RunningModel, *generations: Generation) -> int:
    """Step until all have ended; returns the number of steps."""
    for steps in range(3_000):
        if all(generation.ended for generation in generations):
            return steps
        running.scheduler.step()
    raise AssertionError("the scheduler does not come to an end")


def stop(running: RunningModel, *generations: Generation) -> None:
    for generation in generations:
        generation.stop()
    running.scheduler.step()


@pytest.fixture(scope="module")
def circling_loaded(vision_folder: Path) -> Loaded:
    """A model that goes round in circles of 24 tokens, and leaves them now and then if it is sampled."""
    loaded = load_folder(vision_folder)
    model: Any = loaded.model
    with torch.no_grad():
        embeddings = model.model.language_model.embed_tokens.weight
        tokens = torch.arange(len(embeddings))
        following = torch.where(tokens < 64, 64 + tokens * 31, tokens - tokens % 24 + (tokens + 1) % 24)
        noise = 0.2 * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
        model.lm_head.weight = torch.nn.Parameter(noise.index_add_(0, following, 0.8 * embeddings))
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.mul_(0.005)
            layer.mlp.down_proj.weight.mul_(0.005)
    return loaded


class Plain:
    """A model that writes one reply at a time, without drafts."""

    def __init__(self, loaded: Loaded) -> None:
        self._running = RunningModel(loaded, CPU, speculate=False)
        self._written: dict[GenerationRequest, tuple[Told, list[int]]] = {}

    def told(self, asked: GenerationRequest) -> Told:
        return self._answer(asked)[0]

    def tokens(self, asked: GenerationRequest) -> list[int]:
        return self._answer(asked)[1]

    def _answer(self, asked: GenerationRequest) -> tuple[Told, list[int]]:
        if asked not in self._written:
            generation = self._running.submit(asked)
            sequence = self._running.scheduler._waiting[-1]
            finish(self._running, generation)
            self._written[asked] = told(generation), sequence.tokens[len(sequence.prompt.ids) :]
            assert self._running.scheduler.drafted == 0
        return self._written[asked]


@pytest.fixture(scope="module")
def plain(vision_loaded: Loaded) -> Plain:
    return Plain(vision_loaded)


@pytest.fixture(scope="module")
def plain_circling(circling_loaded: Loaded) -> Plain:
    return Plain(circling_loaded)


def request(
    asked: str, visitor: str = "ann", images: tuple[ImageFile, ...] = (), **params: object
) -> GenerationRequest:
    prompt = Prompt(SYSTEM, (UserTurn(asked, images),))
    return GenerationRequest(prompt, SamplingParams(max_tokens=40, seed=1).changed(params), visitor)


@dataclass
class Oracle:
    """Knows the reply; tells `wrong` for some of its tokens."""

    reply: list[int]
    wrong: Callable[[], int | None] = lambda: None
    verdicts: list[tuple[int, int]] = field(default_factory=list)

    def propose(self, sequence: DraftableSequence, most: int) -> list[int]:
        assert isinstance(sequence, Sequence)
        right = self.reply[sequence.written : sequence.written + most]
        wrong = [self.wrong() for _ in right]
        return [token if other is None else other for token, other in zip(right, wrong, strict=True)]

    def judged(self, proposed: int, accepted: int) -> None:
        self.verdicts.append((proposed, accepted))


@dataclass
class Greedy:
    """Takes as many rows as it is given."""

    asked: int = 0

    def propose(self, _: DraftableSequence, most: int) -> list[int]:
        self.asked += most
        return [1_000] * most

    def judged(self, proposed: int, accepted: int) -> None:
        pass


@dataclass
class Nonsense:
    """Drafts whatever `tokens` has next, without regard to how many are asked for."""

    tokens: Iterator[int]
    length: int = 3

    def propose(self, _: DraftableSequence, most: int) -> list[int]:
        return [next(self.tokens) for _ in range(self.length)]

    def judged(self, proposed: int, accepted: int) -> None:
        assert 0 <= accepted <= proposed < SPECULATIVE_ROWS


def random_request(rng: random.Random, n: int, paint: Callable[..., ImageFile]) -> GenerationRequest:
    images = tuple(paint(rng.randint(30, 120), rng.randint(30, 120), n) for _ in range(rng.choice([0, 0, 1])))
    words = " ".join(rng.choices(["one", "zwei", "3", "?!"], k=rng.choice([1, 8, 60])))
    params = SamplingParams(
        seed=n,
        temperature=rng.choice([0.0, 0.3, 0.7, 1.0]),
        top_p=rng.choice([0.3, 0.95, 1.0]),
        repetition_penalty=rng.choice([1.0, 1.0, 0.9, 1.2]),
        max_tokens=rng.randint(1, 90),
        reasoning_budget=rng.choice([None, None, 0, 5, 20]),
    )
    resume = rng.choice([None, None, Resume("", closed=False)])
    return GenerationRequest(Prompt(SYSTEM, (UserTurn(words, images),), resume), params, rng.choice("abc"))


@pytest.mark.parametrize("seed", range(3))
def test_drafts_change_no_word(
    circling_loaded: Loaded, paint: Callable[..., ImageFile], plain_circling: Plain, seed: int
) -> None:
    """Random visitors join and leave at random steps."""
    rng = random.Random(seed)
    running = RunningModel(circling_loaded, CPU)
    asked = [random_request(rng, n, paint) for n in range(7)]
    generations = []
    for each in asked:
        generations.append(running.submit(each))
        for _ in range(rng.randint(0, 12)):
            running.scheduler.step()
        if rng.random() < 0.2:
            rng.choice(generations).stop()
    finish(running, *generations)
    for each, generation in zip(asked, generations, strict=True):
        said, expected = told(generation), plain_circling.told(each)
        if generation.stop_requested:
            assert text(expected).startswith(text(said).rstrip("\ufffd"))
        else:
            assert said == expected
    assert running.scheduler.accepted > 10


def test_who_is_set_aside_goes_on_drafting(
    circling_loaded: Loaded, plain_circling: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [request(f"say {n}", f"v{n}", max_tokens=100, seed=n, temperature=0.3) for n in range(4)]
    expected = [plain_circling.told(each) for each in asked]
    for module in (memory, kv_cache, decode_step, exact_attention, sequences):
        monkeypatch.setattr(module, "PAGE_TOKENS", 64)
    monkeypatch.setattr(running_model, "pages_held", lambda planned, longest: 4)
    running = RunningModel(circling_loaded, CPU)
    admissions, take = [], running.cache.take
    monkeypatch.setattr(running.cache, "take", lambda *of: admissions.append(of) or take(*of))
    generations = [running.submit(each) for each in asked]
    finish(running, *generations)
    assert [told(generation) for generation in generations] == expected
    assert len(admissions) > len(asked)
    assert running.scheduler.accepted > 40


@pytest.mark.parametrize("kind", ["right", "now and then wrong", "nonsense", "control tokens", "too long"])
def test_whoever_drafts_changes_no_word(
    vision_loaded: Loaded, paint: Callable[..., ImageFile], plain: Plain, kind: str
) -> None:
    rng = random.Random(kind)
    running = RunningModel(vision_loaded, CPU)
    asked = [random_request(rng, n, paint) for n in range(6)]
    marks = running.tokenizer.control_tokens()
    control = [running.tokenizer.end_of_turn, *marks.opening, *marks.closing, 10]  # an image's token among them

    def drafter(each: GenerationRequest) -> Drafter:
        reply = plain.tokens(each)
        return {
            "right": Oracle(reply),
            "now and then wrong": Oracle(reply, lambda: rng.choice([None, None, None, 700])),
            "nonsense": Nonsense(iter(lambda: rng.randrange(2_112), -1)),
            "control tokens": Oracle(reply, lambda: rng.choice([None, *control])),
            "too long": Nonsense(iter(lambda: rng.randrange(1_000, 2_112), -1), 50),
        }[kind]

    generations = [submit(running, each, drafter(each)) for each in asked]
    finish(running, *generations)
    assert [told(generation) for generation in generations] == [plain.told(each) for each in asked]
    assert running.scheduler.drafted > 40
    if kind == "right":  # all but those that control contradicts
        assert running.scheduler.accepted > 0.9 * running.scheduler.drafted


def test_a_right_draft_saves_its_steps(vision_loaded: Loaded, plain: Plain) -> None:
    asked = request("go", max_tokens=64, temperature=1.0)
    oracle = Oracle(plain.tokens(asked))
    assert len(oracle.reply) == 64
    running = RunningModel(vision_loaded, CPU)
    generation = submit(running, asked, oracle)
    assert finish(running, generation) <= 2 + 64 // SPECULATIVE_ROWS
    assert generation.usage.completion_tokens == 64
    assert oracle.verdicts == [(7, 7)] * 7 + [(6, 6)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [0.9, 1.3])
def test_a_penalty_sees_the_drafts_before(
    circling_loaded: Loaded, plain_circling: Plain, penalty: float, temperature: float
) -> None:
    asked = request("go", max_tokens=60, repetition_penalty=penalty, temperature=temperature)
    running = RunningModel(circling_loaded, CPU)
    generation = submit(running, asked, Oracle(plain_circling.tokens(asked)))
    finish(running, generation)
    assert told(generation) == plain_circling.told(asked)
    assert running.scheduler.accepted > 40


@pytest.mark.parametrize("pressed", [1, 40])
def test_answer_now_comes_after_the_same_token(circling_loaded: Loaded, pressed: int) -> None:
    prompt = Prompt((), (UserTurn("?"),), Resume("", closed=False))
    asked = GenerationRequest(prompt, SamplingParams(max_tokens=120, seed=2, temperature=0.7), "ann")

    def answered(after: int, speculate: bool) -> tuple[int, Told]:
        running = RunningModel(circling_loaded, CPU, speculate=speculate)
        generation = running.submit(asked)
        sequence = running.scheduler._waiting[-1]
        while sequence.written < after:
            running.scheduler.step()
        written = sequence.written
        generation.answer_now()
        finish(running, generation)
        assert running.scheduler.accepted > 20 or not speculate
        return written, told(generation)

    written, said = answered(pressed, speculate=True)
    assert answered(written, speculate=False) == (written, said)
    assert Notice("answered_now") in said


def test_what_is_no_longer_banned_may_come_at_once(vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that wants to end: it may as soon as there is one token of an answer, though drafts were drawn before that."""
    asked = GenerationRequest(
        Prompt((), (UserTurn("?"),), Resume("", closed=False)),
        SamplingParams(max_tokens=60, seed=0, reasoning_budget=12),
        "ann",
    )
    running = RunningModel(vision_loaded, CPU)
    end = running.tokenizer.end_of_turn

    def draw(_: torch.Tensor, draws: list[Draw], __: list[int]) -> list[int]:
        return [end if each.position > 12 and end not in each.banned else 1_000 + each.position for each in draws]

    monkeypatch.setattr(executor, "sample_batch", draw)
    replies = []
    for drafter in (
        Nonsense(iter(lambda: 0, 1), 0),
        Oracle([*range(1_001, 1_012), *running.tokenizer.control_tokens().closing, *range(1_013, 1_030)]),
    ):
        generation = submit(running, asked, drafter)
        finish(running, generation)
        replies.append(told(generation))
    assert replies[0] == replies[1]
    assert replies[0][-1] == ("stop", 12, 1)
    assert running.scheduler.accepted > 5


def test_the_loop_guard_acts_as_without_drafts(circling_loaded: Loaded, plain_circling: Plain) -> None:
    prompt = Prompt((), (UserTurn("?"),), Resume("", closed=False))
    asked = GenerationRequest(prompt, SamplingParams(max_tokens=620, seed=0, temperature=0), "ann")
    running = RunningModel(circling_loaded, CPU)
    generation = running.submit(asked)
    steps = finish(running, generation)
    assert told(generation) == plain_circling.told(asked)
    assert Notice("loop_broken") in told(generation)
    assert steps < 620 // 4


def test_what_drafts_leave_in_the_cache_is_what_the_reply_says(vision_loaded: Loaded, plain: Plain) -> None:
    """A reply that is resumed after drafts that failed reads no more than without them, and says the same."""
    asked = request("go", max_tokens=30, temperature=0.7)
    rng, resumed = random.Random(0), []
    for speculate in (True, False):
        running = RunningModel(vision_loaded, CPU, speculate=speculate)
        generation = submit(running, asked, Oracle(plain.tokens(asked), lambda: rng.choice([None, None, 700])))
        finish(running, generation)
        (entry,) = [each for each in running.cache._entries if each.visitor == "ann"]
        assert entry.cache.length == len(entry.keys)
        resume = Resume(generation.reasoning or None, closed=True, answer=generation.answer)
        again = running.submit(GenerationRequest(Prompt(SYSTEM, asked.prompt.turns, resume), asked.params, "ann"))
        finish(running, again)
        resumed.append((again.usage.reused_tokens, told(again)))
    assert resumed[0] == resumed[1]
    assert resumed[0][0] > 30


def test_nobody_drafts_while_somebody_reads(running: RunningModel) -> None:
    generation = submit(running, request("go", max_tokens=200, temperature=1.0), Oracle([1_000] * 300))
    while running.scheduler.drafted == 0:
        running.scheduler.step()
    reader = running.submit(request("word " * 700, "bob"))
    drafted = running.scheduler.drafted
    running.scheduler.step()
    assert any(sequence.prefilling for sequence in running.scheduler._running)
    while any(sequence.prefilling for sequence in running.scheduler._running):
        assert running.scheduler.drafted == drafted
        running.scheduler.step()
    running.scheduler.step()
    assert running.scheduler.drafted > drafted
    stop(running, generation, reader)


@pytest.mark.parametrize("visitors", [1, 3, SPECULATIVE_ROWS])
def test_free_rows_are_shared(vision_loaded: Loaded, visitors: int) -> None:
    """All of them are given, and over time equally many to each; none where as many decode."""
    running = RunningModel(vision_loaded, CPU)
    drafters = [Greedy() for _ in range(visitors)]
    generations = [
        submit(running, request("go", f"v{n}", max_tokens=90, temperature=1.0), each) for n, each in enumerate(drafters)
    ]
    while not all(sequence.written for sequence in running.scheduler._running) or running.scheduler._waiting:
        running.scheduler.step()
    start = [each.asked for each in drafters]
    for _ in range(2 * visitors):
        before = sum(each.asked for each in drafters)
        running.scheduler.step()
        assert sum(each.asked for each in drafters) - before == SPECULATIVE_ROWS - visitors
    assert len({each.asked - before for each, before in zip(drafters, start, strict=True)}) == 1
    stop(running, *generations)


def test_a_reply_written_again_is_drafted_from_the_one_it_replaces(vision_loaded: Loaded) -> None:
    """For the visitor who has it, and for nobody else."""
    asked = request("tell", max_tokens=60, temperature=1.0)
    running, steps = RunningModel(vision_loaded, CPU), {}
    for name, visitor in (("first", "ann"), ("again", "ann"), ("another's", "eve")):
        steps[name] = finish(running, running.submit(GenerationRequest(asked.prompt, asked.params, visitor)))
    assert steps["again"] < steps["first"] / 2
    assert steps["another's"] == steps["first"]
