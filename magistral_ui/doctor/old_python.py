"""Says that a Python is too old for the app; runs on any Python 3 itself, so it uses nothing that only newer ones have."""

import json
import platform
import sys
from pathlib import Path

MIN_PYTHON = (3, 10)
TEXTS = Path(__file__).parents[1] / "i18n" / "locales" / "en.json"


def refuse() -> None:
    """End the process with a sentence and its remedy, where everything else would end with a trace."""
    with TEXTS.open(encoding="utf-8") as file:
        text = json.load(file)["doctor_python_old"]
    found, needed = platform.python_version(), ".".join(map(str, MIN_PYTHON))
    sys.stderr.write(text.replace("{found}", found).replace("{needed}", needed) + "\n")
    sys.exit(2)
