"""Turns the models of the owner's list into the values that the page's script draws; it asks nothing and changes nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from magistral_ui.chat.events import Json, failure_value
from magistral_ui.errors import Message
from magistral_ui.models.cards import RE_UPLOADS, ModelCard
from magistral_ui.models.gguf_names import split_name
from magistral_ui.models.ladder import LADDER_CONTEXT, Candidate
from magistral_ui.models.memory import MemoryPlan

if TYPE_CHECKING:
    from magistral_ui.engines.weights.library import LibraryEntry
    from magistral_ui.ui.model_fit import Fit


def model_entry_value(entry: "LibraryEntry", fit: "Fit", held: Sequence["LibraryEntry"] = ()) -> Json:
    """`held` are all entries: the GGUF models of this one that are on this computer are ways to run it."""
    found = fit.found.get(entry.key)
    return {
        **_card_value(entry.key, entry.card, fit),
        "repository": entry.repository,
        "quantization": entry.quantization,
        "state": entry.state,
        "on_disk": entry.on_disk,
        "download": entry.total,
        "done": entry.done,
        "total": entry.total,
        "seconds_left": entry.seconds_left,
        "seconds": entry.seconds,
        "best": entry.key == fit.best,
        "failure": message_value(entry.failure),
        "ways": [*_ways(entry, found), *_held_ways(entry, found, held)] if entry.card else [],
        "original": _original(entry),
    }


def _original(entry: "LibraryEntry") -> str | None:
    """The key of the card that an entry is a quantized copy of."""
    from magistral_ui.engines.weights.gguf_download import card_of_repository

    card = card_of_repository(entry.repository) if entry.quantization else RE_UPLOADS.get(entry.key)
    return card.key if card else None


def local_entry_value(key: str, card: ModelCard | None, fit: "Fit") -> Json:
    """The demo model, or a folder of the operator's: nothing of it can be downloaded or removed here."""
    nothing = dict.fromkeys(("seconds_left", "seconds", "failure", "original"))
    sizes = dict.fromkeys(("on_disk", "download", "done", "total"), 0)
    rest: Json = {"repository": "", "quantization": "", "state": "local", "best": False, "ways": []}
    return {**_card_value(key, card, fit), **rest, **sizes, **nothing}


def _card_value(key: str, card: ModelCard | None, fit: "Fit") -> Json:
    found = fit.found.get(key)
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
        "choices": _choices(found, fit) if found else [],
    }


def _choices(found: Candidate, fit: "Fit") -> list[Json]:
    """One for each precision that fits; first the one that is used if nobody chooses."""
    shape, limit = found.card.shape, found.card.context_length
    if shape is None:
        return []
    choices: list[Json] = []
    for plan in sorted(found.plans, key=lambda each: each.precision != found.plan.precision):
        # What it takes with a usual context, or with as much as fits beside it.
        context = min(LADDER_CONTEXT, plan.context, limit)
        pace, measured = fit.pace(shape, plan.precision)
        choices.append(
            {
                "precision": plan.precision,
                "engine": _engine(plan),
                "weights": plan.weights,
                "needs": fit.machine.needed_bytes(shape, plan, context),
                "context": min(plan.context, limit),
                "pace": pace,
                "measured": measured,
            }
        )
    # Where the first one's pace is not known, the others' would only make them look better.
    return (
        choices if choices and choices[0]["pace"] else [{**each, "pace": None, "measured": False} for each in choices]
    )


def _engine(plan: MemoryPlan) -> str:
    return "llama.cpp" if plan.kv_type else "transformers"


def _ways(entry: "LibraryEntry", found: Candidate | None) -> list[Json]:
    """The ways to get a model, with what each downloads and holds in memory."""
    from magistral_ui.engines.weights.gguf_entries import gguf_download_bytes, nf4_download

    ways: list[Json] = []
    for each in found.plans if found else ():
        way: Json = {"precision": each.precision, "engine": _engine(each), "memory": each.weights, "fits": True}
        if each.kv_type:
            if name := _gguf_name(entry, each.precision):
                ways.append({**way, "repository": name, "download": gguf_download_bytes(*split_name(name))})
            continue
        ways.append({**way, "repository": entry.repository, "download": entry.total})
        if each.precision == "nf4":
            copies = (name for name, original in RE_UPLOADS.items() if original.repository == entry.repository)
            ways += ({**way, "repository": name, "download": nf4_download(name)} for name in copies)
    return ways


def _held_ways(entry: "LibraryEntry", found: Candidate | None, held: Sequence["LibraryEntry"]) -> list[Json]:
    """The GGUF models of `entry` on this computer that are not planned: other quantizations, or from other repositories.

    Whether these fit is not known before their files are read.
    """
    planned = {_gguf_name(entry, each.precision) for each in found.plans if each.kv_type} if found else set()
    return [
        {
            "repository": each.key,
            "precision": each.quantization,
            "engine": "llama.cpp",
            "download": each.total,
            "memory": each.total,
            "fits": True,
        }
        for each in held
        if each.quantization and _original(each) == entry.key and each.key not in planned
    ]


def _gguf_name(entry: "LibraryEntry", quantization: str) -> str:
    """The GGUF model of a card's repository that has it, as `owner/repo:QUANT`."""
    from magistral_ui.engines.weights.gguf_entries import gguf_way

    return (gguf_way(entry.card, quantization) if entry.card else None) or ""


def message_value(message: Message | None) -> Json | None:
    return failure_value(message.key, message.values) if message else None
