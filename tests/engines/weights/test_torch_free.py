"""What an engine without torch uses of downloads and their list: it is imported in a process that has no torch."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
MODULES = (
    *("gguf_download", "gguf_entries", "gguf_record", "held_repositories", "hub", "hub_cache", "large_files"),
    *("library", "originals", "pinned_revision", "progress", "quantized_cache", "repository_files"),
)
CODE = """
import importlib
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "accelerate", "safetensors", "bitsandbytes", "gradio"}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    importlib.import_module("magistral_ui.engines.weights." + name)
from magistral_ui.engines.weights.library import ModelLibrary
assert ModelLibrary().entries()
"""


def test_downloads_need_no_torch() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CODE, *MODULES], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
