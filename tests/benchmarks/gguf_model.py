"""Writes the benchmarks' model as GGUF files with the same weights, quantized, for llama.cpp's server and for our engine.

Random weights choose tokens that no trained model chooses: pieces of characters that nothing completes, and control tokens. For
the former llama.cpp sends no chunk, the latter may end a reply. So their rows of the head are zero: the largest of the other
random logits is always above zero, the work remains the same, and both sides send and read the same chunks.
"""

import base64
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open

from magistral_ui.engines.gguf.demo_file import LAYER, interleaved
from magistral_ui.models.folder import inspect_folder
from tests.servers.public_vocabulary import add_vocabulary
from tests.servers.random_gguf import add_metadata

REST = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


TEMPLATE = "{{ bos_token }}[INST]{{ messages[0].content }}[/INST]"
"""The chat template of a conversation of one message, so that llama.cpp reads the same tokens as our engine."""


def make_gguf(folder: Path, quant: str) -> Path:
    """A folder beside the checkpoint in `folder`, with `model.gguf` and its chat template; `quant` is BF16, Q8_0 or Q4_0."""
    made = folder.with_name(f"{folder.name}-{quant.lower()}")
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as begun:
            part = Path(begun) / "part"
            part.mkdir()
            write_model(folder, quant, part / "model.gguf")
            (part / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
            part.rename(made)
    return made


def write_model(folder: Path, quant: str, path: Path) -> None:
    shape, kind = inspect_folder(folder).shape, gguf.GGMLQuantizationType[quant]
    out = gguf.GGUFWriter(str(path), "llama")
    add_metadata(out, shape, quant)
    add_vocabulary(out, shape.vocabulary)
    for name, values in _tensors(folder, {"q_proj": shape.heads, "k_proj": shape.kv_heads}):
        if values.ndim == 2:
            out.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            out.add_tensor(name, values)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _tensors(folder: Path, heads: dict[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    """The decoder's weights in single precision, with llama.cpp's names and order of rows."""
    with safe_open(folder / "model.safetensors", "pt") as weights:
        for key in weights.keys():  # noqa: SIM118  it is no dictionary
            name = key.removesuffix(".weight")
            target, part = _name(name), name.rsplit(".", 1)[-1]
            if target is None:
                continue
            values = weights.get_tensor(key).float().numpy()
            if part in heads:
                values = interleaved(values, heads[part])
            if target == "output":
                values[_unspoken(folder)] = 0
            yield f"{target}.weight", values


def _name(name: str) -> str | None:
    """llama.cpp's name of one of the decoder's weights; None for those of the vision tower."""
    if "vision" in name or "projector" in name:
        return None
    _, inside, part = name.partition("layers.")
    if not inside:
        return REST[name.rsplit(".", 1)[-1]]
    layer, _, part = part.partition(".")
    return f"blk.{layer}.{LAYER[part]}"


def _unspoken(folder: Path) -> np.ndarray:
    """Which tokens no reply is to have: control tokens, and those that are no whole characters."""
    tekken = json.loads((folder / "tekken.json").read_text(encoding="utf-8"))
    special = len(tekken["special_tokens"])
    texts = [base64.b64decode(each["token_bytes"]) for each in tekken["vocab"]]
    return np.array(
        [True] * special + [_broken(text) for text in texts[: tekken["config"]["default_vocab_size"] - special]]
    )


def _broken(text: bytes) -> bool:
    try:
        return not text.decode()
    except UnicodeDecodeError:
        return True
