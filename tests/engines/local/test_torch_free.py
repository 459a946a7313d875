"""What an engine without torch can use of this one: encoding, images, control and scheduling, in a process that has no torch."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "accelerate", "safetensors", "gradio"}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
"""

IMAGES = """
import io
import numpy
from PIL import Image
from magistral_ui.chat.images import read_image
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER

tokenizer = Tokenizer(DEMO_FOLDER / "tekken.json", DEMO, DEMO.system())
files = []
for size in ((200, 160), (8, 8)):  # a large image is scaled by us, a tiny one by mistral-common
    out = io.BytesIO()
    Image.new("RGB", size, "white").save(out, "PNG")
    files.append(read_image(out.getvalue(), "white.png"))
encoded = tokenizer.encode(Prompt(DEMO.system(), (UserTurn("What is this?", tuple(files)),)))
assert len(encoded.image_spans) == 2
for span in encoded.image_spans:
    assert encoded.ids[span.start : span.start + len(span.input.tokens)] == span.input.tokens
    assert isinstance(span.input.pixels, numpy.ndarray)
    assert span.input.pixels.dtype == numpy.float32
assert tokenizer.measure(Prompt((), (UserTurn("hi", (files[0],)),)))[0].total > 2
"""

REPLY = """
from magistral_ui.chat.events import Answer, Finished, Notice, Reasoning
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.schedule import SchedulerLimits
from magistral_ui.engines.local.scheduler import Scheduler
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER

class Entry:
    nbytes = 0
    def __init__(self):
        self.keys, self.pages = [], 1

class Result:
    error = None
    def __init__(self, sequence, count, tokens=(), banned=()):
        self.sequence, self.count, self.tokens, self.banned = sequence, count, tokens, banned

class Executor:
    '''Another one: its model says what it is told to.'''
    pages = 10**6
    def __init__(self, script):
        self.script = script
    def take(self, sequence):
        return Entry()
    def give_back(self, sequence):
        sequence.entry = None
    def run(self, rows):
        return [self.advance(*row) for row in rows]
    def advance(self, sequence, count):
        read = len(sequence.entry.keys)
        assert sequence.next_tokens(count) == sequence.tokens[read : read + count] + sequence.drafts
        sequence.entry.keys += sequence.keys[read : read + count]
        if sequence.unread:
            return Result(sequence, count)
        forced, banned = sequence.forced_token(), sequence.banned_tokens()
        first = sequence.written
        tokens = self.script[first : first + 1 + len(sequence.drafts)]
        assert tokens[0] not in banned or forced is not None
        return Result(sequence, count, tokens if forced is None else [forced, *tokens[1:]], banned)
    def keep(self, sequence, drafts):
        read = len(sequence.entry.keys)
        sequence.entry.keys += sequence.keys[read : read + drafts]

tokenizer = Tokenizer(DEMO_FOLDER / "tekken.json", DEMO, DEMO.system())
control = tokenizer.control_tokens()
answer = tokenizer._text("It is 5.")
script = [*control.opening, *tokenizer._text("First, add. " * 9)[:12], *answer, control.end_of_turn]
scheduler = Scheduler(Executor(script), SchedulerLimits(max_batched_tokens_alone=32))
prompt = Prompt(DEMO.system(), (UserTurn("2 + 3? " * 20),))
generation = Generation()
params = SamplingParams(max_tokens=200, reasoning_budget=11)
request = GenerationRequest(prompt, params, "ann")
scheduler.submit(Sequence(request, tokenizer.encode(prompt), generation, tokenizer, 200))
for _ in range(200):
    if not generation.ended:
        scheduler.step()
events = [stamped.event for stamped in generation.take()]
assert isinstance(events[-1], Finished), events[-1]
assert events[-1].why == "stop"
assert [event.key for event in events if isinstance(event, Notice)] == ["budget_spent"]
assert "First, add." in "".join(event.text for event in events if isinstance(event, Reasoning))
assert "".join(event.text for event in events if isinstance(event, Answer)).endswith("It is 5.")
assert scheduler.accepted > 0
"""


def run(code: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + code + '\nassert "torch" not in sys.modules'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_prompt_with_images_is_encoded() -> None:
    run(IMAGES)


def test_another_executor_writes_a_reply() -> None:
    run(REPLY)
