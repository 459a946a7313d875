"""The demo model as GGUF files: the same numbers as its safetensors, made once, without torch."""

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors import safe_open

from magistral_ui.engines.gguf import cache_folder, demo_file
from magistral_ui.engines.gguf.demo_file import demo_files, interleaved
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from magistral_ui.models.gguf_file import inspect_gguf, read_mmproj


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache_folder, "user_cache_path", lambda name: tmp_path / name)
    cache_folder._temporary_folder.cache_clear()
    return tmp_path / cache_folder.APP_NAME


def test_it_is_recognised_with_its_projector() -> None:
    model, mmproj = demo_files()
    facts, files = inspect_gguf(model)
    with_images = facts.with_mmproj(read_mmproj(mmproj))
    assert files == (model,)
    assert with_images.shape == inspect_folder(DEMO_FOLDER).shape
    assert with_images.card.vision
    assert facts.quantization == "BF16"
    assert facts.name == DEMO.name


def test_the_weights_are_the_same_numbers() -> None:
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(demo_files()[0]).tensors}
    with safe_open(DEMO_FOLDER / "model.safetensors", "pt") as weights:
        embedding = weights.get_tensor("language_model.model.embed_tokens.weight").float().numpy()
        queries = weights.get_tensor("language_model.model.layers.0.self_attn.q_proj.weight").float().numpy()
        norm = weights.get_tensor("language_model.model.norm.weight").float().numpy()
    heads = inspect_folder(DEMO_FOLDER).shape.heads
    for name, expected in {
        "token_embd": embedding,
        "blk.0.attn_q": interleaved(queries, heads),
        "output_norm": norm,
    }.items():
        tensor = written[f"{name}.weight"]
        assert np.array_equal(gguf.quants.dequantize(tensor.data, tensor.tensor_type), expected)


def test_its_files_are_made_once_and_again_for_another_format(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = demo_files()
    monkeypatch.setattr(demo_file, "write_gguf", None)
    assert demo_files() == files
    monkeypatch.undo()
    monkeypatch.setattr(cache_folder, "user_cache_path", lambda name: cache.with_name(name))
    monkeypatch.setattr(demo_file, "FORMAT", 2)
    assert set(demo_files()).isdisjoint(files)
    assert sorted(path.name for path in cache.rglob("*.gguf")) == [
        "demo.gguf",
        "demo.gguf",
        "mmproj.gguf",
        "mmproj.gguf",
    ]


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    model, mmproj = demo_files()
    assert model.is_file()
    assert cache not in mmproj.parents
    assert demo_files() == (model, mmproj)


def test_a_write_that_fails_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(path: Path, metadata: object, tensors: object) -> None:
        path.write_bytes(b"GGUF")
        raise MemoryError

    monkeypatch.setattr(demo_file, "write_gguf", cut_off)
    with pytest.raises(MemoryError):
        demo_files()
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_it_needs_neither_torch_nor_safetensors(tmp_path: Path) -> None:
    script = (
        "import sys; from magistral_ui.engines.gguf.demo_file import demo_files; demo_files(); "
        "sys.exit(bool({'torch', 'safetensors', 'transformers', 'gguf'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], env={"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}, timeout=120
    )
    assert ran.returncode == 0
