"""A folder for PYTHONPATH that makes a Python look as if torch and what stands on it had never been installed."""

from pathlib import Path

MISSING = ("torch", "transformers", "accelerate", "bitsandbytes", "safetensors")
SITE = f"""
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            return None
        return super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *args, **kwargs):
        found = super().find_distributions(*args, **kwargs)
        return (each for each in found if each.metadata["Name"] not in {MISSING!r})

sys.meta_path[:] = [Without if each is PathFinder else each for each in sys.meta_path]
"""


def python_path(folder: Path, *also: str) -> str:
    """Write into `folder` what Python imports at its start; `also` names more libraries to leave out."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE.replace(repr(MISSING), repr((*MISSING, *also))), encoding="utf-8")
    return str(folder)
