"""The library over a loopback Hub's cache: what it lists, and that it removes only what is ours."""

from pathlib import Path

import pytest

from magistral_ui.engines.weights import held_repositories
from magistral_ui.engines.weights.library import ModelLibrary
from magistral_ui.errors import ModelRefused
from magistral_ui.models.cards import FAMILY, MINISTRAL_3_3B, ModelCard
from tests.hub.server import Hub

NAME = str(MINISTRAL_3_3B.repository)


def test_it_lists_the_family_and_removes_what_was_begun(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import constants

    models = ModelLibrary()
    assert [each.key for each in models.entries()] == [card.key for card in FAMILY]
    assert {each.state for each in models.entries()} == {"absent"}
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{NAME.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "ab.partial").write_bytes(b"x" * 100)
    own = tmp_path / "own"
    own.mkdir()
    (own / "model.safetensors").write_bytes(b"mine")
    entry = next(each for each in models.entries() if each.key == MINISTRAL_3_3B.key)
    assert (entry.state, entry.on_disk) == ("partial", 100)
    with pytest.raises(ModelRefused):
        ModelLibrary(lambda: {NAME}).remove(MINISTRAL_3_3B.key)
    assert blobs.exists()
    models.remove(MINISTRAL_3_3B.key)
    assert not blobs.parent.exists()
    assert (own / "model.safetensors").exists()
    models.close()


def test_what_is_complete_is_checked_again_only_after_a_change(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    checked: list[str] = []

    def note(card: ModelCard) -> bool:
        checked.append(card.key)
        return False

    monkeypatch.setattr(held_repositories, "is_complete", note)
    models = ModelLibrary()
    models.entries()
    checked.clear()
    models.entries()
    assert checked == []
    refs = Path(constants.HF_HUB_CACHE) / f"models--{NAME.replace('/', '--')}" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40, encoding="utf-8")
    models.entries()
    assert checked == [MINISTRAL_3_3B.key]
    models.close()
