"""Knows which repositories have run here or are complete, except for GGUF files; it checks again only after a change."""

from collections.abc import Iterator

from magistral_ui.engines.weights.gguf_record import recorded_models
from magistral_ui.engines.weights.hub import held_snapshot
from magistral_ui.engines.weights.hub_cache import folder_of, repositories_with
from magistral_ui.engines.weights.pinned_revision import REFERENCE, recorded
from magistral_ui.engines.weights.quantized_cache import copy_for
from magistral_ui.engines.weights.repository_files import FileMarks, file_marks, holds_safetensors
from magistral_ui.models.cards import CARDS, ModelCard
from magistral_ui.models.folder import is_commit


def is_complete(card: ModelCard) -> bool:
    """Whether all of the card's files are on this computer, at the commit that would run, or a quantized copy of them."""
    name = card.repository or ""
    revision = recorded(name) or card.revision
    if not is_commit(revision):
        return False
    copies = (copy_for("auto", name, str(revision), precision) for precision in ("nf4", "int8"))
    return held_snapshot(name, revision) is not None or any(copy is not None and copy.is_there for copy in copies)


class HeldRepositories:
    """Repositories in the Hub's cache."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[FileMarks, bool]] = {}

    def names(self) -> Iterator[str]:
        """Repositories that have run here, by the reference that pinned_revision.py keeps, or are complete for a known card."""
        for name in repositories_with(f"refs/{REFERENCE}"):
            if holds_safetensors(name) or not recorded_models(name):
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
