"""A loaded model at work: finds the model that was asked for, brings it up, and takes requests for its scheduler."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import GenerationRequest, Loading, Measure
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.devices import Device, choose_default, choose_precision, find_device
from magistral_ui.engines.local.encoding import Encoder
from magistral_ui.engines.local.forward import Part, TextModel
from magistral_ui.engines.local.loader import Loaded, download, load
from magistral_ui.engines.local.prefix_cache import PrefixCache
from magistral_ui.engines.local.scheduler import Limits, Scheduler, empty_device_cache
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.errors import PromptTooLong
from magistral_ui.models.cards import ModelCard, find_card
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder, is_repository

Report = Callable[[Loading], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for; None and `auto` leave it to the machine."""

    model: str | None = None
    device: str = "auto"
    precision: str = "auto"
    context_length: int | None = None
    threads: int | None = None


class RunningModel:
    """A model, its tokenizer, its cache and its scheduler. `run` must be called in the thread that made it."""

    def __init__(self, loaded: Loaded, device: Device, context_length: int | None = None) -> None:
        self.card = loaded.card
        self.encoder = Encoder(loaded.tekken, loaded.card, loaded.system)
        self.system = loaded.system
        text_model = TextModel(loaded.model)
        budget = kv_budget(device)
        fits = budget // loaded.kv_bytes_per_token
        self.context_length = min(loaded.info.context_length, fits, context_length or fits)
        self.info = replace(loaded.info, context_length=self.context_length)
        host = psutil.virtual_memory().available // 4 if device.type == "cuda" else 0
        self.cache = PrefixCache(text_model.new_cache, device.torch, budget, host)
        limits = Limits(chunk=256, chunk_alone=512) if device.type == "cpu" else Limits(16, 64, 512, 2048)
        self.scheduler = Scheduler(text_model, self.cache, loaded.image_token, limits)
        warm_up(text_model)

    def measure(self, prompt: Prompt, visitor: str) -> Measure:
        """What `prompt` costs, and what of it the visitor's cache holds."""
        measure, encoded = self.encoder.measure(prompt, visitor)
        return replace(measure, reused=self.cache.match(visitor, encoded.keys))

    def submit(self, request: GenerationRequest) -> Generation:
        """Begin a reply; PromptTooLong or QueueFull where that cannot be."""
        encoded = self.encoder.encode(request.prompt, request.visitor)
        room = self.context_length - len(encoded.ids)
        if room < 1:
            raise PromptTooLong(tokens=len(encoded.ids), limit=self.context_length)
        generation = Generation(on_control=self.scheduler.wake)
        limit = min(request.params.max_tokens, room)
        self.scheduler.submit(Sequence(request, encoded, generation, self.encoder, limit))
        return generation

    def run(self) -> None:
        """Serve until `close`."""
        self.scheduler.run()

    def close(self) -> None:
        """End `run`; all generations end as cancelled."""
        self.scheduler.close()


def bring_up(wish: Wish, report: Report, closing: threading.Event) -> RunningModel | None:
    """The wished model, ready to run, or None where `closing` was set meanwhile; raises what `loader.load` does."""
    if wish.threads:
        torch.set_num_threads(wish.threads)
    device = find_device(wish.device)
    card, folder, why = find_model(wish.model, device, report)
    precision = choose_precision(card, device, wish.precision)
    loaded = load(card, folder, device, precision, why, report)
    if closing.is_set():
        return None
    report(Loading("warming_up"))
    running = RunningModel(loaded, device, wish.context_length)
    empty_device_cache()
    return running


def find_model(wanted: str | None, device: Device, report: Report) -> tuple[ModelCard, Path | None, str]:
    """Card, folder (None: still to be downloaded) and the key of why this model, for a card's key, repository or folder."""
    if wanted is None:
        card, why = choose_default(device)
    elif (known := find_card(wanted)) is not None:
        card, why = known, "model_chosen_by_hand"
    else:
        folder = Path(wanted).expanduser()
        if not folder.exists() and is_repository(wanted):
            report(Loading("downloading"))
            folder = download(wanted)
        return inspect_folder(folder).card, folder, "model_chosen_by_hand"
    return card, DEMO_FOLDER if card.demo else None, why


def kv_budget(device: Device) -> int:
    """Bytes for keys and values: most of what a GPU has left after loading, a quarter of a computer's free memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device.torch)
        return max(0, int(free - 0.75 * 2**30 - 0.03 * total))
    return min(4 * 2**30, int(psutil.virtual_memory().available) // 4)


def warm_up(model: TextModel) -> None:
    """One small forward: kernels are chosen and weights packed now, in this thread, instead of under the first visitor."""
    cache = model.new_cache()
    model([Part(cache, [0] * 8)])
    model([Part(cache, [0])])
