"""What goes wrong while weights are read is told as what it is: only what is damaged is called damaged."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import core_model_loading

from magistral_ui.engines.local import running_model
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.load_errors import is_out_of_memory, memory_named
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.errors import ModelError, ModelFilesBroken, OutOfMemory
from magistral_ui.i18n.texts import sentence, strings
from magistral_ui.models.folder import inspect_folder
from tests.engines.conftest import CPU

NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 336.00 MiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GiB, max allowed: 18.1 GiB)."),
    RuntimeError("Invalid buffer size: 12.50 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:78] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    SafetensorError("I/O error: Cannot allocate memory (os error 12)"),
    SafetensorError("The paging file is too small for this operation to complete. (os error 1455)"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_every_library_s_words_for_no_memory_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)
    outer = ValueError("something else")
    outer.__cause__ = error
    assert is_out_of_memory(outer)


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), OSError(errno.EIO, "x"), ValueError("memory"), KeyError("oom")], ids=str
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def refusal(folder: Path, precision: str = "float32") -> ModelError:
    """What reading `folder` ends with; its sentence has no gap left."""
    with pytest.raises(ModelError) as refused:
        load(ModelSource(inspect_folder(folder).card, folder), CPU, precision, lambda _: None)
    assert f"error_{refused.value.message.key}" in strings()
    assert "{" not in sentence(refused.value.message)
    return refused.value


def says_memory(refused: ModelError) -> None:
    assert isinstance(refused, OutOfMemory)
    said = sentence(refused.message).lower()
    assert "memory" in said
    for word in ("delete", "download", "damaged"):
        assert word not in said


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_no_memory_in_the_middle_of_quantizing(
    text_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    calls = []

    def full(*_: Any, **__: Any) -> Any:
        calls.append(None)
        raise error

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", full)
    says_memory(refusal(text_folder, "nf4"))
    assert len(calls) == 1, "and it does not go on with hundreds of tensors"


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_no_memory_while_a_tensor_is_placed(
    text_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(core_model_loading, "set_param_for_module", full)
    says_memory(refusal(text_folder))


def test_transformers_has_its_own_way_back(text_folder: Path) -> None:
    usual = core_model_loading.log_conversion_errors
    load(ModelSource(inspect_folder(text_folder).card, text_folder), CPU, "nf4", lambda _: None)
    assert core_model_loading.log_conversion_errors is usual


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_no_memory_for_the_first_step(vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(_: object) -> None:
        raise error

    monkeypatch.setattr(running_model, "warm_up", full)
    with pytest.raises(ModelError) as refused, memory_named("m", "GPU"):
        RunningModel(vision_loaded, CPU)
    says_memory(refused.value)


@pytest.fixture
def folder(text_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(text_folder, tmp_path / "model"))


def rewrite(folder: Path, change: Any) -> str:
    """Let `change` alter the tensors of one weights file; the name of one of them."""
    file = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if "mlp.up_proj" in name)
    change(tensors, name)
    save_file(tensors, file, metadata={"format": "pt"})
    return name


def test_a_missing_tensor_is_not_made_up(folder: Path) -> None:
    name = rewrite(folder, lambda tensors, name: tensors.pop(name))
    refused = refusal(folder)
    assert (type(refused), refused.message.key) == (ModelFilesBroken, "weights_missing")
    assert name.partition("layers")[2] in str(refused.message.values["name"])


def test_a_tensor_under_a_name_that_nobody_knows_is_missing_too(folder: Path) -> None:
    name = rewrite(folder, lambda tensors, name: tensors.update({"up": tensors.pop(name)}))
    refused = refusal(folder)
    assert (refused.message.key, refused.message.values["name"]) == ("weights_missing", name)


@pytest.mark.parametrize("precision", ["float32", "nf4"])
def test_a_tensor_of_another_shape_is_named(folder: Path, precision: str) -> None:
    def narrower(tensors: dict[str, torch.Tensor], name: str) -> None:
        tensors[name] = tensors[name][:-8].contiguous()

    rewrite(folder, narrower)
    refused = refusal(folder, precision)
    assert refused.message.key == "weights_misshapen"
    assert (refused.message.values["found"], refused.message.values["expected"]) == ("88 × 64", "96 × 64")


@pytest.mark.parametrize(
    "change", [{"hidden_act": "no such"}, {"rope_parameters": {"rope_type": "no such"}}, {"num_key_value_heads": 0}]
)
def test_a_configuration_of_no_model_is_damaged(folder: Path, change: dict[str, Any]) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config.get("text_config", config).update(change)
    file.write_text(json.dumps(config), encoding="utf-8")
    refused = refusal(folder)
    assert (refused.message.key, refused.message.values["file"]) == ("model_files_broken", "config.json")


def test_a_file_that_is_cut_meanwhile_is_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sorted(folder.glob("*.safetensors"))[0]

    def cut(*_: Any, **__: Any) -> Any:
        shorter = file.with_suffix(".shorter")
        shorter.write_bytes(file.read_bytes()[:-10])
        # Another file in its place: who reads beyond the end of a mapped file that was cut dies of a bus error.
        shorter.replace(file)
        raise SafetensorError("Error while deserializing header: incomplete metadata, file not fully covered")

    monkeypatch.setattr(core_model_loading, "set_param_for_module", cut)
    refused = refusal(folder)
    assert (refused.message.key, refused.message.values["file"]) == ("model_files_broken", file.name)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: no kernel image is available"), AssertionError("x"), ImportError("x")], ids=str
)
def test_what_is_nobody_s_fault_does_not_blame_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(core_model_loading, "set_param_for_module", fail)
    refused = refusal(folder)
    assert (refused.message.key, refused.message.values["reason"]) == ("model_not_loaded", str(error))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), str(folder / "model.safetensors"))

    monkeypatch.setattr(core_model_loading, "set_param_for_module", fail)
    refused = refusal(folder)
    assert refused.message.key == "model_file_unreadable"
    assert refused.message.values["reason"] == os.strerror(number)


def test_a_configuration_that_transformers_refuses(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": "small"}), encoding="utf-8")
    refused = refusal(folder)
    assert (refused.message.key, refused.message.values["file"]) == ("model_files_broken", "config.json")
