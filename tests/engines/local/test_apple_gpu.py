"""Whole replies of the demo model on tensors that claim to lie on an Apple GPU, and refuse what such a one does not have."""

import io
from collections.abc import Iterator

import pytest
import torch
from PIL import Image, ImageDraw

from magistral_ui.chat.events import Answer, Finished, Reasoning
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local import running_model as running_module
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.local.sampler import sample_batch
from magistral_ui.engines.local.sampling_state import SamplingState
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.models.folder import DEMO_FOLDER
from tests.engines.conftest import load_folder
from tests.engines.following import follow
from tests.engines.local.fake_devices import Claims, claim

APPLE = Device("mps", "Apple GPU", 2**33, 2**33)


@pytest.fixture(scope="module")
def apple() -> Iterator[RunningModel]:
    """The demo model, all of whose tensors claim to lie there."""
    loaded = load_folder(DEMO_FOLDER)
    for tensor in (*loaded.model.parameters(), *loaded.model.buffers()):
        claim(tensor, APPLE.torch)
    with pytest.MonkeyPatch.context() as patch, Claims():
        patch.setattr(running_module, "look_again", lambda device: device)
        yield RunningModel(loaded, APPLE)


def ask(
    running: RunningModel, text: str, visitor: str = "ann", image: ImageFile | None = None, **params: object
) -> Generation:
    """A reply that is begun."""
    sampling = SamplingParams(max_tokens=80, seed=3).changed(params)
    turn = UserTurn(text, () if image is None else (image,))
    return running.submit(GenerationRequest(Prompt(running.system, (turn,)), sampling, visitor))


def told(running: RunningModel, *generations: Generation) -> list[tuple[str, str]]:
    """What the replies say, reasoning and answer, once they have ended in order."""
    for _ in range(600):
        if all(each.ended for each in generations):
            break
        running.scheduler.step()
    texts = []
    for generation in generations:
        events = list(follow(generation))
        assert isinstance(events[-1], Finished), events[-1]
        reasoning = "".join(event.text for event in events if isinstance(event, Reasoning))
        texts.append((reasoning, "".join(event.text for event in events if isinstance(event, Answer))))
    return texts


SAMPLING: list[dict[str, object]] = [
    {"temperature": 0.0},
    {"temperature": 0.3, "top_p": 0.95},
    {"temperature": 0.3, "top_p": 1.0},
    {"temperature": 0.3, "top_p": 0.9, "top_k": 20, "min_p": 0.05},
    {"temperature": 0.3, "reasoning_budget": 5},
    {"temperature": 0.3, "top_p": 0.5, "repetition_penalty": 1.1, "max_tokens": 20},
    {"temperature": 2.0, "top_p": 0.999, "max_tokens": 20},  # so flat that candidates beyond the first thousand count
]


def test_replies_are_written_together(apple: RunningModel) -> None:
    asked = [ask(apple, "What is 3 + 4?", f"v{n}", **params) for n, params in enumerate(SAMPLING)]
    said = told(apple, *asked)
    for params, (reasoning, answer) in zip(SAMPLING[:4], said, strict=False):
        assert reasoning, params
        assert "7" in answer, params
    assert said[4][1]


def test_an_image_is_looked_at(apple: RunningModel) -> None:
    out = io.BytesIO()
    image = Image.new("RGB", (200, 140), "white")
    ImageDraw.Draw(image).ellipse((60, 30, 140, 110), fill="red")
    image.save(out, "PNG")
    shown = read_image(out.getvalue(), "red.png")
    ((reasoning, answer),) = told(apple, ask(apple, "What do you see?", image=shown, temperature=0.3))
    assert "red" in (reasoning + answer).lower()


def test_a_prefix_that_was_set_aside_comes_back(apple: RunningModel) -> None:
    begun = ask(apple, "What is 3 + 4?", "bob", max_tokens=3)
    told(apple, begun)
    for entry in apple.cache._entries:
        entry.cache.spill()
        entry.cache.restore(len(entry.keys))
    assert {each.device.type for each in apple.decoder.pool.layer(0)} == {"mps"}
    told(apple, ask(apple, "What is 3 + 4?", "bob", max_tokens=3))


def test_the_stand_in_refuses_what_is_not_there() -> None:
    with Claims():
        here = claim(torch.zeros(4), APPLE.torch)
        for refused in (lambda: here.double(), lambda: here.to(torch.float64), lambda: here.type(torch.double)):
            with pytest.raises(TypeError, match="float64"):
                refused()
        with pytest.raises(AssertionError):
            here.topk(2)
        assert here.cpu().double().device.type == "cpu"
        assert here.device.type == "mps"


def test_nothing_is_drawn_on_the_gpu() -> None:
    params = SamplingParams(temperature=1.0, top_p=0.9, top_k=5, min_p=0.01, repetition_penalty=1.3, seed=1)
    with Claims() as claims:
        for rows in (1, 3):
            logits = claim(torch.randn(rows, 500), APPLE.torch)
            draws = [SamplingState(params, {3, 4}).draw(banned=(7,))] * rows
            assert all(0 <= token < 500 for token in sample_batch(logits, draws))
        assert claims.used <= {"__get__", "cpu", "float", "detach"}


def test_its_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    empty_device_cache()
    assert emptied == ["mps"]
