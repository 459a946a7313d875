"""Knows which repositories have run here or are complete, except for GGUF files; it checks again only after a change."""

from collections.abc import Iterator

from magistral_ui.engines.weights.gguf_record import recorded_models
from magistral_ui.engines.weights.hub import held_snapshot
from magistral_ui.engines.weights.pinned_revision import REFERENCE, is_complete, recorded
from magistral_ui.engines.weights.repository_files import (
    FileMarks,
    file_marks,
    folder_of,
    holds_safetensors,
    hub_cache,
)
from magistral_ui.models.cards import CARDS, ModelCard
from magistral_ui.models.folder import is_repository


class HeldRepositories:
    """Repositories in the Hub's cache."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[FileMarks, bool]] = {}

    def names(self) -> Iterator[str]:
        """Repositories that have run here, by the reference that pinned_revision.py keeps, or are complete for a known card."""
        for mark in sorted(hub_cache().glob(f"models--*--*/refs/{REFERENCE}")):
            name = mark.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
            if is_repository(name) and (holds_safetensors(name) or not recorded_models(name)):
                yield name
        for card in CARDS.values():
            known = card.repository
            if known and recorded(known) is None and folder_of(known) and self.is_complete(known, card):
                yield known

    def is_complete(self, name: str, card: ModelCard | None) -> bool:
        """Whether all files are here. That means parsing a tokenizer of many megabytes, and the page asks every second: it is
        done only after a change."""
        marks, held = file_marks(name), self._found.get(name)
        if held is None or held[0] != marks:
            if card is not None:
                whole = is_complete(card)
            else:
                commit = recorded(name)
                whole = commit is not None and held_snapshot(name, commit) is not None
            held = self._found[name] = marks, whole
        return held[1]
