"""Small checkpoints with random weights, made in the tests: a Mistral3 with vision, and a text-only Mistral."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    PixtralVisionConfig,
)

from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder

CPU = Device("cpu", "CPU", 2**33, 2**33)


def text_config() -> MistralConfig:
    return MistralConfig(
        vocab_size=2112,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        rope_theta=1e5,
        sliding_window=None,
        initializer_range=0.3,
    )


@pytest.fixture(scope="session")
def vision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral3 whose weights are large enough that tokens and pixels matter to what it says."""
    torch.manual_seed(0)
    config = Mistral3Config(
        text_config=text_config().to_dict(),
        vision_config=PixtralVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            head_dim=16,
            image_size=168,
            patch_size=14,
            initializer_range=0.3,
        ).to_dict(),
        image_token_index=10,
        spatial_merge_size=2,
    )
    folder = tmp_path_factory.mktemp("vision")
    Mistral3ForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(DEMO_FOLDER / "tekken.json", folder)
    shutil.copy(DEMO_FOLDER / "SYSTEM_PROMPT.txt", folder)
    return folder


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-only Mistral with the textual marks of Magistral 1.0: its tekken.json has no [THINK]."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("text")
    MistralForCausalLM(text_config()).save_pretrained(folder)
    tekken = (DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8")
    renamed = tekken.replace('"[THINK]"', '"<SPECIAL_34>"').replace('"[/THINK]"', '"<SPECIAL_35>"')
    (folder / "tekken.json").write_text(renamed, encoding="utf-8")
    return folder


def load_folder(folder: Path) -> Loaded:
    return load(ModelSource(inspect_folder(folder).card, folder), CPU, "float32", lambda _: None)


@pytest.fixture(scope="session")
def vision_loaded(vision_folder: Path) -> Loaded:
    return load_folder(vision_folder)


@pytest.fixture(scope="session")
def text_loaded(text_folder: Path) -> Loaded:
    return load_folder(text_folder)


@pytest.fixture
def running(vision_loaded: Loaded) -> RunningModel:
    """The vision model, with a scheduler that the test steps by hand."""
    return RunningModel(vision_loaded, CPU)


@pytest.fixture(scope="session")
def paint() -> Callable[..., ImageFile]:
    """Makes a picture of the given size in noise of its own seed."""

    def painted(width: int, height: int, seed: int = 0) -> ImageFile:
        noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(noise).save(out, "PNG")
        return read_image(out.getvalue(), f"{width}x{height}.png")

    return painted
