"""Reads a model's files into memory: from a folder, or from the Hugging Face Hub; it does not run the model."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoConfig, BitsAndBytesConfig, Mistral3ForConditionalGeneration, MistralForCausalLM
from transformers.utils.logging import disable_progress_bar

from magistral_ui.chat.prompt import SystemPart
from magistral_ui.engines.base import Loading, ModelInfo
from magistral_ui.engines.local.devices import Device
from magistral_ui.errors import ModelFilesBroken, ModelNotFound, NotAMistralModel
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.folder import inspect_folder

NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tekken.json",
    "SYSTEM_PROMPT.txt",
)
"""The rest of the repositories is the same weights in another format, and as large again."""

NOT_QUANTIZED = ["lm_head", "model.vision_tower", "model.multi_modal_projector"]
"""transformers matches these from the start of a module's name: without `model.` the tower would be quantized silently."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "nf4": torch.bfloat16, "int8": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory with what is needed to talk to it."""

    model: Any
    card: ModelCard
    tekken: Path
    system: tuple[SystemPart, ...]
    info: ModelInfo
    image_token: int | None
    kv_bytes_per_token: int


Report = Callable[[Loading], None]


def load(
    card: ModelCard, folder: Path | None, device: Device, precision: str, chosen_because: str, report: Report
) -> Loaded:
    """The model of `card`, from `folder` or (None) from its repository; `report` hears of the stages.

    Raises ModelNotFound, NotAMistralModel or ModelFilesBroken; torch's own OutOfMemoryError where the device is too small.
    """
    source = str(folder or card.repository)
    if folder is None:
        report(Loading("downloading"))
        folder = download(card.repository or "")
    facts = inspect_folder(folder)
    report(Loading("reading", 0, facts.bytes))
    config = AutoConfig.from_pretrained(folder)
    model = _read_weights(config, folder, device, precision)
    text = getattr(config, "text_config", config)
    prompt = folder / "SYSTEM_PROMPT.txt"
    if prompt.is_file():
        card = replace(card, system_prompt_file=str(prompt.resolve()))
    heads = text.num_key_value_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    size = torch.finfo(DTYPES[precision]).bits // 8
    info = ModelInfo(
        name=card.name,
        source=source if card.repository == source else Path(source).name,
        precision=precision,
        device=device.name,
        context_length=min(card.context_length, text.max_position_embeddings),
        parameters=sum(p.numel() for p in model.parameters()),
        chosen_because=chosen_because,
    )
    return Loaded(
        model=model,
        card=card,
        tekken=folder / "tekken.json",
        system=card.system(),
        info=info,
        image_token=getattr(config, "image_token_id", None) if facts.vision else None,
        kv_bytes_per_token=2 * heads * size * text.num_hidden_layers,
    )


def download(repository: str) -> Path:
    """The folder with the needed files of a Hub repository; complete files are never fetched twice."""
    try:
        return Path(snapshot_download(repository, allow_patterns=list(NEEDED_FILES)))
    except RepositoryNotFoundError as error:
        raise ModelNotFound(model=repository) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFound("model_not_downloaded", model=repository, reason=type(error).__name__) from error


def _read_weights(config: Any, folder: Path, device: Device, precision: str) -> Any:
    classes = {"mistral3": Mistral3ForConditionalGeneration, "mistral": MistralForCausalLM}
    kind = classes.get(config.model_type)
    if kind is None:
        raise NotAMistralModel(model=folder.name, found=config.model_type)
    disable_progress_bar()  # the page shows the progress
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # int8 logs a warning with every product
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = kind.from_pretrained(
                folder,
                dtype=DTYPES[precision],
                device_map={"": device.torch},
                quantization_config=quantization(precision),
                local_files_only=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ModelFilesBroken(model=folder.name, file=_first_line(error)) from error
    return model.eval().requires_grad_(False)


def quantization(precision: str) -> BitsAndBytesConfig | None:
    """How bitsandbytes shall store the language model's linear layers; None for plain types."""
    if precision == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=NOT_QUANTIZED,
        )
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=NOT_QUANTIZED)
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
