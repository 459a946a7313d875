"""Tries, for the doctor, whether what the app does against known faults of libraries works with those that are installed.

All of it is done with tiny models, in less than a second.
"""

import random
from collections.abc import Iterator
from typing import Any

import torch
from transformers import Ministral3Config, Ministral3ForCausalLM, MistralConfig, MistralForCausalLM

from magistral_ui.engines.local.attention_choice import use_kernels
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.engine_probe import EngineLog, difference
from magistral_ui.engines.weights.load_errors import LIBRARY_ERRORS, failure_of, first_error_raised
from magistral_ui.engines.weights.quantization import can_quantize, quantization
from magistral_ui.errors import NotAMistralModel
from magistral_ui.models.folder import DEMO_FOLDER, decoder_of

VOCABULARY, WINDOW, TOKENS = 256, 16, 60
"""Positions from WINDOW on are scaled; the model reads TOKENS."""
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "initializer_range": 0.3,
    "max_position_embeddings": 16 * WINDOW,
}
UNKNOWN = {"model_type": "mistral3", "text_config": {"model_type": "mistral4"}}
"""Mistral Small 4, as its config.json names it."""


def safeguard_facts() -> Iterator[dict[str, Any]]:
    yield {"types_refused": unknown_types_are_refused()}
    yield {"stage": "ministral3"}
    yield {"position_scale": position_scale_difference()}
    yield {"stage": "out of memory"}
    yield {"out_of_memory_named": out_of_memory_is_named()}
    if torch.cuda.is_available() and torch.cuda.device_count() > 1:
        yield {"stage": "two graphics cards"}
        yield from _over_two_cards()


def out_of_memory_is_named() -> bool:
    """Whether running out of memory while weights are quantized still gets its own error, as `loader.py` sees to.

    transformers would collect such errors and raise one that says nothing of memory.
    """
    if not can_quantize():
        return True
    from bitsandbytes import functional

    config = MistralConfig(**SIZES)
    state = MistralForCausalLM(config).state_dict()
    usual, refused = functional.quantize_4bit, torch.OutOfMemoryError("CUDA out of memory")

    def full(*_: Any, **__: Any) -> None:
        raise refused

    functional.quantize_4bit = full
    try:
        with first_error_raised():
            MistralForCausalLM.from_pretrained(
                None, config=config, state_dict=state, quantization_config=quantization("nf4", "cpu")
            )
    except LIBRARY_ERRORS as error:
        return failure_of(error, DEMO_FOLDER, "", "").message.key == "out_of_memory_loading"
    finally:
        functional.quantize_4bit = usual
    return False


def unknown_types_are_refused() -> bool:
    try:
        decoder_of(UNKNOWN, "")
    except NotAMistralModel:
        return True
    return False


@torch.inference_mode()
def position_scale_difference() -> float:
    """How far our logits are from transformers' where Ministral 3 scales its queries by position."""
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 16.0,
        "original_max_position_embeddings": WINDOW,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    torch.manual_seed(0)
    return _difference(Ministral3ForCausalLM(Ministral3Config(**SIZES, rope_parameters=rope)).eval())


def _difference(model: Any) -> float:
    rng = random.Random(0)
    tokens = [rng.randrange(VOCABULARY) for _ in range(TOKENS)]
    wanted = model(torch.tensor([tokens])).logits[0, -1]
    decoder = Decoder(model)
    cache = decoder.new_cache()
    decoder([DecoderInput(cache, tokens[:-1])])
    return difference(decoder([DecoderInput(cache, tokens[-1:])])[0], wanted)


@torch.inference_mode()
def _over_two_cards() -> Iterator[dict[str, Any]]:
    """A decode step of a model whose layers are on two cards, beside the same on the processor."""
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)).eval()
    tokens = list(range(TOKENS))
    wanted = model(torch.tensor([tokens])).logits[0, -1]
    model.to("cuda:0")
    model.model.layers[1].to("cuda:1")
    model.model.norm.to("cuda:1")
    model.lm_head.to("cuda:1")
    with EngineLog() as told:
        decoder = Decoder(model)
        use_kernels(decoder)
        decoder.record()
        cache = decoder.new_cache()
        decoder([DecoderInput(cache, tokens[:-1])])
        got = decoder([DecoderInput(cache, tokens[-1:])])[0]
    yield {"split_difference": difference(got.cpu(), wanted), "split_warnings": told.warnings}
