"""Writes the demo model as llama.cpp's own server reads models: weights, vision tower, vocabulary and chat template."""

from pathlib import Path

from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template

from magistral_ui.engines.gguf import writer
from magistral_ui.engines.gguf.demo_file import mmproj_parts, write_mmproj, write_model
from magistral_ui.models.folder import DEMO_FOLDER


def write_gguf(folder: Path) -> None:
    """`model.gguf`, `mmproj.gguf` and `chat_template.jinja` in `folder`; takes a second."""
    write_model(folder / "model.gguf")
    write_mmproj(folder / "mmproj.gguf")
    template = convert_tokenizer_to_chat_template(str(DEMO_FOLDER / "tekken.json"))
    (folder / "chat_template.jinja").write_text(str(template), encoding="utf-8")


def write_quick_mmproj(path: Path) -> None:
    """The demo model's tower cut down to one layer of one head: images of as many tokens for a tenth of the time."""
    metadata, tensors = mmproj_parts()
    head, narrow = 32, {128: 32, 256: 64, 512: 128}
    cut = {}
    for name, tensor in tensors.items():
        if not name.startswith("v.blk.") or name.startswith("v.blk.0."):
            cut[name] = tensor[tuple(slice(narrow.get(length, length)) for length in tensor.shape)]
    vision = {"embedding_length": head, "feed_forward_length": 2 * head, "block_count": 1, "attention.head_count": 1}
    writer.write_gguf(path, metadata | {f"clip.vision.{key}": value for key, value in vision.items()}, cut)
