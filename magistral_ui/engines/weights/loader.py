"""Loads a model's files from a folder into memory, quantizing them if asked; `source.py` knows where they come from."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_submodules
from transformers import (
    AttentionInterface,
    AutoConfig,
    Ministral3ForCausalLM,
    Mistral3ForConditionalGeneration,
    MistralForCausalLM,
)
from transformers.utils import logging as transformers_logging

from magistral_ui.chat.prompt import SystemPart
from magistral_ui.engines.base import ModelInfo
from magistral_ui.engines.weights.devices import Device, choose_plan
from magistral_ui.engines.weights.load_errors import (
    LIBRARY_ERRORS,
    check_loaded,
    check_tensors,
    failure_of,
    first_error_raised,
    plain,
)
from magistral_ui.engines.weights.progress import Meter, Report
from magistral_ui.engines.weights.quantization import (
    DTYPES,
    held_bytes,
    quantization,
    quiet_bitsandbytes,
    stored_precision,
    update_skip_list,
)
from magistral_ui.engines.weights.quantized_cache import save_copy
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.errors import Message, ModelFilesBroken
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.folder import FolderFacts, inspect_folder
from magistral_ui.models.memory import MemoryPlan
from magistral_ui.models.shape import ModelShape, kv_bytes_per_token

log = logging.getLogger(__name__)

DeviceMap = dict[str, torch.device]
"""Module names of transformers' classes → where they lie, as accelerate has it."""
FLOAT32_ATTENTION = "magistral_ui_float32"
"""The name under which transformers finds the attention of cards before Ampere (compute capability 8.0)."""
CLASSES = {
    "mistral3": Mistral3ForConditionalGeneration,
    "mistral": MistralForCausalLM,
    "ministral3": Ministral3ForCausalLM,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, with what an engine needs to run it."""

    model: Any
    card: ModelCard
    tekken: Path
    system: tuple[SystemPart, ...]
    info: ModelInfo
    image_token: int | None
    kv_bytes_per_token: int
    shape: ModelShape
    """With the images that the plan has room for."""
    weights: int
    """Bytes in memory, as measured."""
    layers: tuple[int, ...]
    """Decoder layers on each device."""
    all_layers: int
    """Of the checkpoint: more than are loaded where only the first were asked for."""


def load(
    source: ModelSource,
    device: Device,
    precision: str,
    report: Report,
    *,
    context_length: int | None = None,
    closing: threading.Event | None = None,
    by_way_of_host: bool = False,
    layers: int | None = None,
) -> Loaded:
    """Load the model that was found, and save a quantized copy where `source` says so; `precision` may be `auto`.

    `by_way_of_host` loads into host memory first and moves the model in this thread, as ZeroGPU's GPU emulation requires.
    `layers` loads only so many of the decoder's first layers: enough to try the engine, of no use for replies.
    Raises ModelError (OutOfMemory if the plan was wrong), or progress.Cancelled once `closing` is set.
    """
    quiet_bitsandbytes()
    card, folder, copy = source.card, source.folder, source.copy
    facts = inspect_folder(folder)
    all_layers, facts = facts.shape.layers, _with_layers(facts, layers)
    stored = stored_precision(folder.name, facts.quantization)
    known_bytes = facts.bytes if stored and layers is None else None
    plan = choose_plan(card.name, facts.shape, device, stored or precision, context_length, known_bytes)
    precision = plan.precision
    config = _read_config(folder)
    config.get_text_config().num_hidden_layers = facts.shape.layers
    config.tie_word_embeddings = facts.shape.tied  # as the weights have it; the configuration is not always right
    if stored:
        update_skip_list(config.quantization_config)
    on_the_fly = quantization(precision, device.type) if stored is None else None
    if copy is not None and copy.asked and on_the_fly is not None:
        copy.has_room(plan.weights)  # fail before the work, not after it
    kind = CLASSES[facts.model_type]
    if stored is None:
        check_tensors(facts, kind, config, card.name)
    meter = Meter("quantizing" if on_the_fly else "reading", facts.bytes, report, closing)
    placed = device_map(plan, device, vision=facts.vision, tied=facts.shape.tied)
    if by_way_of_host:
        placed = {"": torch.device("cpu")}
    try:
        with _counting(meter, facts):
            model, told = _read_weights(kind, config, folder, placed, DTYPES[precision], on_the_fly)
        if by_way_of_host:
            model.to(device.torch)
    except LIBRARY_ERRORS as error:
        log.error("the weights could not be read", exc_info=error)
        raise failure_of(error, folder, card.name, device.name) from error
    check_loaded(told, card.name)
    if facts.vision and not device.fused:
        see_in_float32(model)
    if copy is not None and on_the_fly is not None:
        save_copy(model, folder, copy, plan.weights, report)
    prompt = folder / "SYSTEM_PROMPT.txt"
    if prompt.is_file():
        card = replace(card, system_prompt_file=str(prompt.resolve()))
    shape = facts.shape.with_images(plan.image_side)
    info = ModelInfo(
        name=card.name,
        source=source.name or folder.name,
        precision=precision,
        device=device.first(len(plan.shares)).name,
        context_length=min(card.context_length, facts.shape.context_length),
        parameters=facts.shape.parameters,
        revision=source.revision,
        chosen_because=source.chosen_because,
        notices=_image_notice(facts.shape, shape),
    )
    return Loaded(
        model=model,
        card=card,
        tekken=folder / "tekken.json",
        system=card.system(),
        info=info,
        image_token=getattr(config, "image_token_id", None) if facts.vision else None,
        kv_bytes_per_token=kv_bytes_per_token(facts.shape, precision),
        shape=shape,
        weights=held_bytes(model),
        layers=tuple(share.layers for share in plan.shares),
        all_layers=all_layers,
    )


def _with_layers(facts: FolderFacts, layers: int | None) -> FolderFacts:
    """`facts` as if the decoder had at most so many layers."""
    return replace(facts, shape=replace(facts.shape, layers=min(layers or facts.shape.layers, facts.shape.layers)))


def _image_notice(own: ModelShape, planned: ModelShape) -> tuple[Message, ...]:
    """Says that images are scaled down further than the model would need, to leave room for a longer context."""
    if planned == own:
        return ()
    return (Message("smaller_images", {"side": planned.image_side, "full": own.image_side}),)


def _read_config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except LIBRARY_ERRORS as error:
        raise ModelFilesBroken(model=folder.name, file="config.json") from error


def _read_weights(
    kind: Any, config: Any, folder: Path, placed: DeviceMap, dtype: torch.dtype, on_the_fly: Any
) -> tuple[Any, dict[str, Any]]:
    """The model, and transformers' report of missing or mismatched tensors."""
    transformers_logging.disable_progress_bar()  # the page shows the progress
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # int8 logs a warning with every product
    with first_error_raised(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, told = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map=placed,
            quantization_config=on_the_fly,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are reported, and rejected below
            output_loading_info=True,
        )
    remove_hook_from_submodules(model)  # our forward moves activations between devices itself
    return model.eval().requires_grad_(False), told


@contextmanager
def _counting(meter: Meter, facts: FolderFacts) -> Iterator[None]:
    """Within this context, transformers reports each loaded tensor's bytes to the meter instead of a progress bar."""
    sizes = {plain(name): size for name, size in facts.tensors.items()}

    def hook(make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not kwargs.get("desc", "").startswith("Loading weights") or not args:
            return make(*args, **kwargs)
        return counted(args[0])

    def counted(items: Any) -> Iterator[Any]:
        for item in items:
            yield item
            meter.add(sizes.get(plain(item[0]), 0))

    before = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


def device_map(plan: MemoryPlan, device: Device, *, vision: bool, tied: bool) -> DeviceMap:
    """Module names of transformers' Mistral3 (`vision`) or Mistral classes → where they lie.

    The vision tower and the embedding go on the first device, then the layers in order, then norm and head on the last; a
    head that is `tied` to the embedding stays with it.
    """
    used = [each.torch for each in device.all[: len(plan.shares)]]
    if len(used) == 1:
        return {"": used[0]}
    decoder = "model.language_model" if vision else "model"
    placed = {f"{decoder}.embed_tokens": used[0], f"{decoder}.rotary_emb": used[0]}
    if vision:
        placed |= {"model.vision_tower": used[0], "model.multi_modal_projector": used[0]}
    layer_places = [place for place, share in zip(used, plan.shares, strict=True) for _ in range(share.layers)]
    placed |= {f"{decoder}.layers.{n}": place for n, place in enumerate(layer_places)}
    head = used[0] if tied else used[-1]
    return placed | {f"{decoder}.norm": head, "lm_head": head}


def see_in_float32(model: Any) -> None:
    """Let a Mistral3's vision tower attend in float32, for which every GPU has fused kernels.

    GPUs before Ampere have none for bfloat16: the scores of all pairs of patches would fill 19 GB for the largest image.
    """
    AttentionInterface.register(FLOAT32_ATTENTION, _attend_in_float32)
    model.model.vision_tower.set_attn_implementation(FLOAT32_ATTENTION)


def _attend_in_float32(
    module: Any,  # noqa: ARG001  # transformers calls every attention alike
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    mask = None if attention_mask is None else attention_mask.float()
    seen = torch.nn.functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=mask, scale=scaling
    )
    return seen.to(query.dtype).transpose(1, 2).contiguous(), None
