"""Exported files name what wrote a reply: the quantization, and an engine other than the usual one."""

from dataclasses import replace

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.reply import Provenance, Reply
from magistral_ui.export.document import Captions, Document
from magistral_ui.export.html import export_html
from magistral_ui.export.json import export_json
from magistral_ui.export.markdown import export_markdown
from magistral_ui.i18n.texts import text

SOURCE = "unsloth/Magistral-Small-2509-GGUF:Q4_K_M"
GGUF = Provenance("Magistral Small 1.2", SOURCE, "abc123", "Q4_K_M", "CPU", "llama.cpp")
REPLY = Reply(answer="42", finish_reason="stop", model=GGUF.model, provenance=GGUF)
DOCUMENT = Document(Conversation().say("6 × 7?").with_reply(REPLY), "A product")


def test_html_and_markdown_name_the_quantization_and_llama_cpp() -> None:
    line = "Magistral Small 1.2 · abc123 · Q4_K_M · llama.cpp"
    assert line in export_html([DOCUMENT], text)
    assert line.replace("_", r"\_") in export_markdown([DOCUMENT], text)


def test_json_has_all_of_it() -> None:
    exported = export_json([DOCUMENT]).decode()
    for told in (SOURCE, "Q4_K_M", "llama.cpp"):
        assert f'"{told}"' in exported


@pytest.mark.parametrize("engine", ["", "transformers"])
def test_the_usual_engine_is_not_named(engine: str) -> None:
    usual = replace(REPLY, provenance=replace(GGUF, precision="nf4", engine=engine))
    assert Captions(text).source(usual) == "Magistral Small 1.2 · abc123 · nf4"
