"""Measures what drafts gain and what they cost: the same replies with and without them, by the same model, in turns.

Random weights write nothing that repeats itself. So replies recite given texts here: every forward and every draw is made as
always, and then the text's token at that position counts in place of the one that was drawn. What is drafted, how much of it is
right, and what all of it costs is as if a model wrote these words.
"""

import gc
import random
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.local import executor
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.local.sampling_state import Draw
from magistral_ui.engines.local.scheduler import SPECULATIVE_ROWS
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.loader import load
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from tests.benchmarks.table import Row, at_least, at_most, told

CPU = Device("cpu", "CPU", 2**34, 2**34)
ADJECTIVES = ("old", "green", "narrow", "quiet", "second", "heavy", "wooden", "distant", "careful", "early", "broken")
NOUNS = ("ferry", "garden", "letter", "bridge", "teacher", "window", "market", "engine", "river", "lamp", "orchard")
VERBS = (
    "reaches",
    "follows",
    "repairs",
    "finds",
    "leaves",
    "carries",
    "counts",
    "opens",
    "describes",
    "needs",
    "paints",
)
PLACES = (
    "before noon",
    "near the harbour",
    "without a map",
    "behind the mill",
    "in the rain",
    "by hand",
    "after supper",
)
QUESTIONS = (
    "What is 17 + 25?",
    "Tell me about yourself.",
    "Write a poem about the sea.",
    "Hello!",
    "Is 91 a prime number?",
    "Why is the sky blue?",
    "How many r are in strawberry?",
    "Count to ten.",
    "What can you do?",
    "Name three colours.",
)


def sentences(source: random.Random, count: int) -> list[str]:
    """Plain sentences: pairs of words come again by chance, as they do in any text, and longer runs hardly ever."""

    def thing() -> str:
        return f"the {source.choice(ADJECTIVES)} {source.choice(NOUNS)}"

    made = (f"{thing()} {source.choice(VERBS)} {thing()} {source.choice(PLACES)}." for _ in range(count))
    return [each[0].upper() + each[1:] for each in made]


def quoting(seed: int, count: int) -> tuple[str, str]:
    """Reasoning of `count` sentences, and an answer as long, of which three sentences in four are the reasoning's own."""
    source = random.Random(seed)
    reasoning, own = sentences(source, count), sentences(source, count)
    quoted = source.sample(reasoning, count)
    answer = [own[n] if n % 4 == 0 else quoted[n] for n in range(count)]
    return " ".join(reasoning), " ".join(answer)


def plain(seed: int, count: int) -> tuple[str, str]:
    """The same, but no sentence of the answer is the reasoning's."""
    source = random.Random(seed)
    return " ".join(sentences(source, count)), " ".join(sentences(source, count))


def unrepeated(seed: int, count: int) -> tuple[list[int], list[int]]:
    """The tokens of a text in which none comes twice, so that no guess can be right."""
    tokens = random.Random(seed).sample(range(2_000, 60_000), 30 * count)
    return tokens[: 15 * count], tokens[15 * count :]


Text = str | list[int]
"""Words, or their tokens."""


class Recital:
    """A model that recites: request n says text n, reasoning and answer, with or without drafts."""

    def __init__(
        self,
        running: RunningModel,
        texts: Sequence[tuple[Text, Text]],
        seconds: Callable[[Callable[[], Any]], float] | None = None,
    ) -> None:
        """`seconds` of a job, by default those of the processor."""
        self._running, self._cost = running, seconds or cpu_seconds
        tokenizer = running.tokenizer
        marks = tokenizer.control_tokens()

        def tokens(text: Text) -> list[int]:
            return tokenizer._text(text) if isinstance(text, str) else text

        self._replies = [
            [*marks.opening, *tokens(reasoning), *marks.closing, *tokens(answer)] for reasoning, answer in texts
        ]

    def ratio(self, times: int) -> float:
        """Seconds without drafts ÷ with them: the median of pairs, each run one right after the other."""
        return statistics.median(self._seconds(0) / self._seconds(SPECULATIVE_ROWS) for _ in range(times))

    def _seconds(self, speculative_rows: int) -> float:
        scheduler = self._running.scheduler
        scheduler.speculative_rows = speculative_rows
        generations = []
        with self._recited():
            for seed, reply in enumerate(self._replies):
                visitor = secrets.token_hex(8)  # nobody asks twice, so that nothing is remembered of an earlier round
                prompt = Prompt((), (UserTurn("Tell me what happens."),))
                params = SamplingParams(temperature=0, max_tokens=len(reply), seed=seed)
                generations.append(self._running.submit(GenerationRequest(prompt, params, visitor)))
            seconds = self._cost(lambda: self._finish(generations))
        for generation, reply in zip(generations, self._replies, strict=True):
            assert generation.usage.completion_tokens == len(reply)
        return seconds

    def _finish(self, generations: Sequence[Any]) -> None:
        while not all(generation.ended for generation in generations):
            self._running.scheduler.step()

    @contextmanager
    def _recited(self) -> Iterator[None]:
        real = executor.sample_batch

        def recite(logits: torch.Tensor, draws: Sequence[Draw], rows: Sequence[int] | None = None) -> list[int]:
            real(logits, draws, rows)
            return [self._replies[draw.params.seed or 0][draw.position] for draw in draws]

        executor.sample_batch = recite
        try:
            yield
        finally:
            executor.sample_batch = real


def cpu_seconds(job: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    job()
    return time.process_time() - start


def rows(folder: Path, quick: bool) -> Iterator[Row]:
    """What drafts change for one visitor and for several, and that they change no word."""
    for precision in ("bfloat16", "float32"):
        running = loaded(folder, precision)
        yield from _pace(precision, running, quick)
        del running
    for precision in ("bfloat16", "float32"):
        different, tokens = differing(precision, 12 if quick else 100)
        what = f"{precision}: replies of 100 of the demo model that drafts change"
        yield at_most(what, 0, different, f"{tokens:.2f} tokens a step")


def _pace(name: str, running: RunningModel, quick: bool) -> Iterator[Row]:
    times, count = (1, 6) if quick else (3, 14)
    single = Recital(running, [quoting(1, count)]).ratio(times)
    yield at_least(f"{name}: an answer that quotes its reasoning, tokens/s with drafts ÷ without", 1.4, single)
    yield told(f"{name}: … one that quotes nothing", Recital(running, [plain(2, count)]).ratio(times))
    unlike = Recital(running, [unrepeated(3, count)]).ratio(times)
    yield at_least(f"{name}: … a text in which no token comes twice", 0.98, unlike)
    few = Recital(running, [quoting(10 + n, count // 2) for n in range(4)])
    yield told(f"{name}: … 4 visitors at once, who quote", few.ratio(times))
    many = Recital(running, [quoting(20 + n, count // 2) for n in range(8)])
    yield at_least(f"{name}: … 8 visitors at once, who quote", 0.98, many.ratio(times))


def loaded(folder: Path, precision: str) -> RunningModel:
    return RunningModel(load(ModelSource(inspect_folder(folder).card, folder), CPU, precision, lambda _: None), CPU)


def differing(precision: str, replies: int = 100) -> tuple[int, float]:
    """Of so many replies of the demo model, how many differ from those without drafts; and tokens a step with drafts."""
    running = loaded(DEMO_FOLDER, precision)
    steps = tokens = different = 0
    for number in range(replies):
        said = []
        for drafts in (0, SPECULATIVE_ROWS):
            running.scheduler.speculative_rows = drafts
            params = SamplingParams(temperature=(0, 0.7, 1)[number % 3], max_tokens=400, seed=number)
            prompt = Prompt(running.system, (UserTurn(QUESTIONS[number % len(QUESTIONS)]),))
            generation = running.submit(GenerationRequest(prompt, params, f"with {drafts} rows"))
            while not generation.ended:
                running.scheduler.step()
                steps += bool(drafts)
            tokens += generation.usage.completion_tokens * bool(drafts)
            said.append((generation.reasoning, generation.answer))
        different += said[0] != said[1]
    return different, tokens / steps
