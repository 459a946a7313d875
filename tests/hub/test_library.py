"""The library over a loopback Hub's cache: what it lists, and that it removes only what is ours."""

from pathlib import Path

import pytest

from magistral_ui.engines.weights.library import ModelLibrary
from magistral_ui.errors import ModelRefused
from magistral_ui.models.cards import FAMILY, MINISTRAL_3_3B
from tests.hub.server import Hub

NAME = str(MINISTRAL_3_3B.repository)


def test_it_lists_the_family_and_removes_what_was_begun(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import constants

    library = ModelLibrary(lambda: None)
    assert [each.key for each in library.entries()] == [card.key for card in FAMILY]
    assert {each.state for each in library.entries()} == {"absent"}
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{NAME.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "ab.partial").write_bytes(b"x" * 100)
    own = tmp_path / "own"
    own.mkdir()
    (own / "model.safetensors").write_bytes(b"mine")
    entry = next(each for each in library.entries() if each.key == MINISTRAL_3_3B.key)
    assert (entry.state, entry.on_disk) == ("partial", 100)
    with pytest.raises(ModelRefused):
        ModelLibrary(lambda: NAME).remove(MINISTRAL_3_3B.key)
    assert blobs.exists()
    library.remove(MINISTRAL_3_3B.key)
    assert not blobs.parent.exists()
    assert (own / "model.safetensors").exists()
    library.close()
