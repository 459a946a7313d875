"""Finds the files of the model that was asked for: a card's, a repository's, or a folder; what is not here is downloaded."""

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from magistral_ui.engines.local.copies import check_copy_folder, is_copy
from magistral_ui.engines.local.devices import Device, choose_default, choose_plan
from magistral_ui.engines.local.hub import download, read_config
from magistral_ui.engines.local.progress import Report
from magistral_ui.engines.local.quantization import stored_precision
from magistral_ui.models.cards import ModelCard, find_card
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder, is_repository
from magistral_ui.models.shape import read_shape


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for; None and `auto` leave it to the machine."""

    model: str | None = None
    device: str = "auto"
    precision: str = "auto"
    context_length: int | None = None
    threads: int | None = None
    revision: str | None = None
    save_quantized: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A folder with all files of a model, and where they come from."""

    card: ModelCard
    folder: Path
    name: str
    revision: str
    chosen_because: str
    copy_to: tuple[Path, dict[str, str]] | None = None
    """Where a quantized copy shall be saved, and what it says of its origin."""


def find_source(wish: Wish, device: Device, report: Report, closing: threading.Event) -> Source:
    """What `wish` means on `device`. Whether the model fits is found out before it is downloaded, where that can be.

    Raises what `hub.download` and `inspect_folder` do, DeviceTooSmall, CopyNotSaved or progress.Cancelled.
    """
    why, card = "model_chosen_by_hand", find_card(wish.model) if wish.model else None
    if wish.model is None:
        card, why = choose_default(device)
    name = wish.model or ""
    if card is not None:
        name = card.repository or card.key
    copy, origin = None, {"model": name, "revision": wish.revision or "", "precision": wish.precision}
    if wish.save_quantized:
        copy = Path(wish.save_quantized).expanduser()
        if is_copy(copy, origin):
            return Source(card or inspect_folder(copy).card, copy, name, wish.revision or "", why)
        check_copy_folder(copy)
    copy_to = (copy, origin) if copy else None
    if card is not None and card.repository is None:
        return Source(card, DEMO_FOLDER, card.key, "", why, copy_to)
    folder = Path(name).expanduser()
    if card is None and (folder.exists() or not is_repository(name)):
        return Source(inspect_folder(folder).card, folder, folder.resolve().name, "", why, copy_to)
    revision = wish.revision or (card.revision if card else None)
    _check_fit(card, name, revision, device, wish)
    snapshot = download(name, revision, report, closing)
    if card is None:
        card = replace(inspect_folder(snapshot.folder).card, key=name, name=name.rpartition("/")[2], repository=name)
    return Source(card, snapshot.folder, name, snapshot.commit, why, copy_to)


def _check_fit(card: ModelCard | None, name: str, revision: str | None, device: Device, wish: Wish) -> None:
    stored, shape = None, card.shape if card else None
    if shape is None:
        config = read_config(name, revision)
        shape, stored = read_shape(config), stored_precision(name, config.get("quantization_config"))
    choose_plan(card.name if card else name, shape, device, stored or wish.precision, wish.context_length)
