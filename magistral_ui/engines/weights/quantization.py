"""Configures how bitsandbytes quantizes the language model's linear layers; it reads no weights.

Everything else stays in bfloat16: the head and the vision tower are a twentieth of the model, and are where precision matters.

By device: CUDA has bitsandbytes' fused kernels for both. On a processor nf4 decodes faster than bfloat16 (0.042 s a step to
0.066 s, with AVX512-BF16), and int8 does not. On Apple's GPU bitsandbytes 0.50 runs nf4, with plain scales, since nested ones
are unpacked at every matrix product; transformers' own MetalConfig would download kernels as code at start.
"""

import importlib.util
import logging
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from magistral_ui.errors import ModelFilesBroken, NotAMistralModel
from magistral_ui.models.folder import MAX_TYPE_LENGTH

NOT_QUANTIZED = ["lm_head", "model.vision_tower", "model.multi_modal_projector"]
"""transformers matches these from the start of a module's name: without `model.` the tower would be quantized silently."""
OLD_NAMES = {
    "language_model.lm_head": "lm_head",
    "language_model.model": "model.language_model",
    "vision_tower": "model.vision_tower",
    "multi_modal_projector": "model.multi_modal_projector",
}
"""Module names in the skip lists of checkpoints from 2025 → their names in transformers 5."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "nf4": torch.bfloat16, "int8": torch.bfloat16}


def quiet_bitsandbytes() -> None:
    """Before it is imported: it warns about an optional package that would download code."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def can_quantize() -> bool:
    """Whether bitsandbytes is installed; some platforms have no wheels."""
    return importlib.util.find_spec("bitsandbytes") is not None


def has_fast_nf4() -> bool:
    """Whether this processor has the instructions (AVX512-BF16) that bitsandbytes' nf4 kernel needs."""
    if not can_quantize() or not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    # bitsandbytes would tell the same, after an import that takes seconds: it prepares torch's compiler.
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def quantization(precision: str, device_type: str) -> BitsAndBytesConfig | None:
    """The configuration for transformers; None for a precision that is not quantized."""
    if precision == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=device_type != "mps",
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=NOT_QUANTIZED,
        )
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=NOT_QUANTIZED)
    return None


def stored_precision(model: str, stored: Any) -> str | None:
    """The precision in a checkpoint's `quantization_config`; None if it is not quantized.

    Raises NotAMistralModel for a method other than bitsandbytes, ModelFilesBroken for what describes none.
    """
    if not stored:
        return None
    skipped = stored.get("llm_int8_skip_modules") if isinstance(stored, dict) else ()
    if not isinstance(skipped, list | None) or not all(isinstance(name, str) for name in skipped or ()):
        raise ModelFilesBroken(model=model, file="config.json")
    if stored.get("quant_method") != "bitsandbytes":
        found = str(stored.get("quant_method"))[:MAX_TYPE_LENGTH]
        raise NotAMistralModel("quantization_not_supported", model=model, found=found)
    return "nf4" if stored.get("load_in_4bit") else "int8"


def update_skip_list(stored: dict[str, Any]) -> None:
    """Add the current module names to a checkpoint's skip list; otherwise transformers takes these modules for quantized."""
    names = list(stored.get("llm_int8_skip_modules") or ["lm_head"])
    for name in list(names):
        for old, new in OLD_NAMES.items():
            if name == old or name.startswith(f"{old}."):
                names.append(new + name.removeprefix(old))
    stored["llm_int8_skip_modules"] = list(dict.fromkeys(names))


def held_bytes(model: Any) -> int:
    """Bytes of all weights in memory, packed ones and quantization scales and tables too; shared tensors count once."""
    seen: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for part in (tensor, *_quantization_state(tensor)):
            seen[part.data_ptr()] = part.numel() * part.element_size()
    packed = 0
    for module in model.modules():
        packed += getattr(module, "packed_bytes", 0)
        scales = getattr(getattr(module, "weight", None), "SCB", None)
        if scales is not None:
            seen[scales.data_ptr()] = scales.numel() * scales.element_size()
    return packed + sum(seen.values())


def _quantization_state(weight: Any) -> list[torch.Tensor]:
    found = []
    state = getattr(weight, "quant_state", None)
    while state is not None:
        found += [each for each in (state.absmax, state.code, state.offset) if isinstance(each, torch.Tensor)]
        state = getattr(state, "state2", None)  # bitsandbytes deletes it when it unpacks nested scales
    return found
