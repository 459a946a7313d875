"""Chooses a quantization of a GGUF repository by what fits, and downloads it with its projector; it loads none."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from magistral_ui.engines.weights.progress import Report
from magistral_ui.models.gguf_file import GGUFFacts
from magistral_ui.models.memory import MemoryPlan

PlanGGUF = Callable[[GGUFFacts], MemoryPlan]
"""How a model would be run here. Raises DeviceTooSmall if it does not fit."""


@dataclass(frozen=True, slots=True)
class GGUFDownload:
    """The files of a model in one quantization, all in the Hub's cache."""

    files: tuple[Path, ...]
    """The model's file, or all files over which it is split, in order."""
    mmproj: Path | None
    """Its projector, which may be another repository's; None: there is none, so the model reads text only."""
    commit: str
    label: str
    """The quantization as it is named in the repository: `UD-Q4_K_XL`."""


def fetch(
    repository: str,
    quantization: str | None,
    revision: str | None,
    plan: PlanGGUF,
    report: Report,
    closing: threading.Event,
) -> GGUFDownload:
    """Download a model of `repository` at `revision` (None: the one that ran here before, else the newest).

    `quantization` is a label of the repository (case does not matter); None: the best for which `plan` finds room. The plan is
    asked before the download, by the header of the file. What is complete at a recorded commit is used without the Hub.

    Raises ModelNotFound, NotAMistralModel, ModelFilesBroken, DeviceTooSmall, DownloadFailed or progress.Cancelled.
    """
    raise NotImplementedError


def is_gguf_repository(repository: str) -> bool:
    """Whether a GGUF model of `repository` has been downloaded, or begun, here; the Hub is not asked."""
    raise NotImplementedError
