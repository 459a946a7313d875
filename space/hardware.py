"""What runs on each hardware of a Space: the memory plan as a table for docs/space.md; it queries no device.

`python -m space.hardware` writes the table into docs/space.md; a test checks that it is up to date.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from magistral_ui.models.cards import DEMO, MINISTRAL_3_3B, ModelCard
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from magistral_ui.models.gguf_plan import estimated_weights, plan_gguf
from magistral_ui.models.ladder import Candidate, best_candidate, candidates
from magistral_ui.models.memory import GIB, MemoryPlan, best_plan

MIB = 2**20
DOCUMENT = Path(__file__).parents[1] / "docs" / "space.md"
BEGIN, END = "<!-- hardware: begin -->", "<!-- hardware: end -->"
ZERO = "zero-a10g"
"""The Hub's name for ZeroGPU, from its first GPUs."""
GGUF_QUANTIZATION = "Q4_K_M"
"""Of Ministral 3 3B, on hardware without a GPU."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of hardware, and the Hub's names for it."""

    flavors: tuple[str, ...]
    """Flavors that differ only in the CPU beside the GPUs share a row."""
    name: str
    place: DeviceBudget
    """GPU memory as nvidia-smi reports it, unused; CPU memory as the Hub's documentation states it."""

    @property
    def best(self) -> Candidate | None:
        """The model that runs there, with its plan; None if it is the demo model."""
        if self.place.type == "cpu":
            return None
        # On ZeroGPU weights are loaded before there is a GPU, so none can quantize them.
        return best_candidate(candidates(self.place, ("bfloat16",) if ZERO in self.flavors else None))


def _processor(flavor: str, name: str, gigabytes: int) -> Hardware:
    return Hardware((flavor,), name, DeviceBudget("cpu", gigabytes * GIB, gigabytes * GIB))


def _cards(flavors: str, name: str, size: int, count: int = 1, *, fused: bool = True) -> Hardware:
    card = DeviceBudget("cuda", size, size, fused=fused)
    named = f"{count} × {name}" if count > 1 else name
    return Hardware(tuple(flavors.split()), named, replace(card, others=(card,) * (count - 1)))


# Memory: https://huggingface.co/docs/hub/spaces-gpus and the GPUs' data sheets; ZeroGPU's: configs.json of the spaces package,
# less what it reserves for a CUDA context (spaces/zero/torch/static.py).
HARDWARE = (
    _processor("cpu-basic", "2 vCPU, free", 16),
    _processor("cpu-upgrade", "8 vCPU", 32),
    _cards(ZERO, "ZeroGPU: half an H200, shared", 74_625_056_768 - 309_002_240),
    _cards("t4-small t4-medium", "T4", 15_360 * MIB, fused=False),
    _cards("l4x1", "L4", 23_034 * MIB),
    _cards("l4x4", "L4", 23_034 * MIB, 4),
    _cards("a10g-small a10g-large", "A10G", 23_028 * MIB),
    _cards("a10g-largex2", "A10G", 23_028 * MIB, 2),
    _cards("a10g-largex4", "A10G", 23_028 * MIB, 4),
    _cards("l40sx1", "L40S", 46_068 * MIB),
    _cards("l40sx4", "L40S", 46_068 * MIB, 4),
    _cards("l40sx8", "L40S", 46_068 * MIB, 8),
    _cards("a100-large", "A100", 81_920 * MIB),
    _cards("a100x4", "A100", 81_920 * MIB, 4),
    _cards("a100x8", "A100", 81_920 * MIB, 8),
    _cards("rtx-pro-6000", "RTX PRO 6000", 97_887 * MIB),
    _cards("rtx-pro-6000x2", "RTX PRO 6000", 97_887 * MIB, 2),
    _cards("rtx-pro-6000x4", "RTX PRO 6000", 97_887 * MIB, 4),
    _cards("rtx-pro-6000x8", "RTX PRO 6000", 97_887 * MIB, 8),
)


def find_hardware(flavor: str) -> Hardware | None:
    """The hardware of a flavor, if it is known here."""
    return next((each for each in HARDWARE if flavor in each.flavors), None)


def table() -> list[str]:
    head = "| `--hardware` | | Memory, GiB | Model | Precision | Longest context | Visitors |"
    return [head, "|---|---|---|---|---|---|---|", *(row for each in HARDWARE for row in _rows(each))]


def _rows(hardware: Hardware) -> Iterator[str]:
    """One for what runs there unasked; without a GPU another for `--gguf`."""
    place, best = hardware.place, hardware.best
    flavors = ", ".join(f"`{flavor}`" for flavor in hardware.flavors)
    if best is not None:
        yield _row(flavors, hardware, best.card, best.plan)
        return
    yield _row(flavors, hardware, DEMO, best_plan(inspect_folder(DEMO_FOLDER).shape, place))
    if (shape := MINISTRAL_3_3B.shape) is not None:
        planned = plan_gguf(shape, estimated_weights(shape, GGUF_QUANTIZATION), place)
        yield _row(f"{flavors} `--gguf`", hardware, MINISTRAL_3_3B, planned)


def _row(flavors: str, hardware: Hardware, card: ModelCard, planned: MemoryPlan) -> str:
    memory = f"{sum(each.total for each in hardware.place.all) / GIB:.1f}"
    visitors = "one a slice" if ZERO in hardware.flavors else f"{planned.visitors:,}"
    context = min(planned.context, card.context_length)
    cells = (flavors, hardware.name, memory, card.name, planned.precision, f"{context:,}", visitors)
    return f"| {' | '.join(cells)} |"


def written(document: str) -> str:
    """`document` with the table replaced."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join((before + BEGIN, *table(), END + after))


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write("\n".join(table()) + "\n")
