"""Writes the demo model as llama.cpp's own server reads models: weights, vision tower, vocabulary and chat template."""

from pathlib import Path

from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template

from magistral_ui.engines.gguf.demo_file import write_mmproj, write_model
from magistral_ui.models.folder import DEMO_FOLDER


def write_gguf(folder: Path) -> None:
    """`model.gguf`, `mmproj.gguf` and `chat_template.jinja` in `folder`; takes a second."""
    write_model(folder / "model.gguf")
    write_mmproj(folder / "mmproj.gguf")
    template = convert_tokenizer_to_chat_template(str(DEMO_FOLDER / "tekken.json"))
    (folder / "chat_template.jinja").write_text(str(template), encoding="utf-8")
