"""Turns the models of the owner's list into the values that the page's script draws; it asks nothing and changes nothing."""

from typing import TYPE_CHECKING

from magistral_ui.chat.events import Json, failure_value
from magistral_ui.errors import Message
from magistral_ui.models.cards import RE_UPLOADS, ModelCard
from magistral_ui.models.ladder import LADDER_CONTEXT, Candidate
from magistral_ui.models.memory import needed_bytes

if TYPE_CHECKING:
    from magistral_ui.engines.weights.devices import Device
    from magistral_ui.engines.weights.library import LibraryEntry


def model_entry_value(entry: "LibraryEntry", found: Candidate | None, device: "Device", is_best: bool) -> Json:
    card = entry.card
    value = _card_value(entry.key, card, found, device)
    left = entry.seconds_left
    return {
        **value,
        "repository": entry.repository,
        "state": entry.state,
        "on_disk": entry.on_disk,
        "download": entry.total,
        "done": entry.done,
        "total": entry.total,
        "seconds_left": left,
        "seconds": left,
        "best": is_best,
        "failure": message_value(entry.failure),
        "ways": _ways(entry, found),
        "original": RE_UPLOADS[entry.key].key if entry.key in RE_UPLOADS else None,
    }


def local_entry_value(key: str, card: ModelCard, found: Candidate | None, device: "Device") -> Json:
    """The demo model, or a folder of the operator's: nothing of it can be downloaded or removed here."""
    sizes = dict.fromkeys(("on_disk", "download", "done", "total"), 0)
    nothing: Json = {
        "seconds_left": None,
        "seconds": None,
        "best": False,
        "failure": None,
        "ways": [],
        "original": None,
    }
    return {**_card_value(key, card, found, device), "repository": "", "state": "local", **sizes, **nothing}


def _card_value(key: str, card: ModelCard | None, found: Candidate | None, device: "Device") -> Json:
    shape = found.card.shape if found else card.shape if card else None
    return {
        "key": key,
        "name": card.name if card else key,
        "license": card.license if card else "",
        "parameters": shape.parameters if shape else 0,
        "vision": card.vision if card else False,
        "languages": list(card.languages) if card else [],
        "benchmarks": dict(card.benchmarks) if card else {},
        "fits": found is None or found.refusal is None,
        "refusal": message_value(found.refusal) if found else None,
        "choices": _choices(found, device),
    }


def _choices(found: Candidate | None, device: "Device") -> list[Json]:
    if found is None or found.card.shape is None:
        return []
    shape, limit = found.card.shape, found.card.context_length
    return [
        {
            "precision": plan.precision,
            "weights": plan.weights,
            "needs": needed_bytes(
                shape, plan.precision, device.type, min(LADDER_CONTEXT, limit), len(plan.shares), device.fused
            ),
            "context": min(plan.context, limit),
            "pace": found.tokens_per_second if plan.precision == found.plan.precision else None,
            "measured": found.measured and plan.precision == found.plan.precision,
        }
        for plan in found.plans
    ]


def _ways(entry: "LibraryEntry", found: Candidate | None) -> list[Json]:
    """The ways to get a model, with what each downloads and holds in memory."""
    from magistral_ui.engines.weights.library import nf4_download

    ways: list[Json] = []
    for each in found.plans if found else ():
        way: Json = {"precision": each.precision, "memory": each.weights}
        ways.append({**way, "repository": entry.repository, "download": entry.total})
        if each.precision == "nf4":
            copies = (name for name, original in RE_UPLOADS.items() if original.repository == entry.repository)
            ways += ({**way, "repository": name, "download": nf4_download(name)} for name in copies)
    return ways


def message_value(message: Message | None) -> Json | None:
    return failure_value(message.key, message.values) if message else None
