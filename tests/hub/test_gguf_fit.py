"""Which quantization of Magistral a machine downloads, over a loopback Hub: decided by the headers of files of the true shape."""

import threading
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from magistral_ui.engines.gguf import repository as module
from magistral_ui.engines.gguf.repository import fetch
from magistral_ui.engines.weights.gguf_download import HEADER_RANGE, HubListing
from magistral_ui.engines.weights.gguf_record import HeldFile, HeldModel
from magistral_ui.errors import DeviceTooSmall
from magistral_ui.models.cards import MAGISTRAL_1_2
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_file import GGUFFacts
from magistral_ui.models.gguf_names import Quantization
from magistral_ui.models.gguf_plan import plan_gguf
from magistral_ui.models.memory import GIB, MemoryPlan, fits
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2
from tests.hub.gguf_repositories import make_header, make_mmproj
from tests.hub.server import Hub, Repository

KNOWN, UNKNOWN = MAGISTRAL_1_2.gguf_repositories[0], "someone/Magistral-GGUF"
KINDS = {"Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q5_K_M": "Q5_K", "Q4_K_M": "Q4_K", "Q3_K_M": "Q3_K", "Q2_K": "Q2_K"}
MMPROJ_SIZE = 880_000_000


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Files that are all header, and how large they claim to be."""
    folder = tmp_path_factory.mktemp("headers")
    sizes = {}
    for label, kind in KINDS.items():
        name = f"Magistral-Small-2509-{label}.gguf"
        sizes[name] = make_header(folder / name, MAGISTRAL_SMALL_1_2, gguf.GGMLQuantizationType[kind])
    make_mmproj(folder / "mmproj-BF16.gguf", 700_000, MAGISTRAL_SMALL_1_2.hidden)
    return folder, sizes | {"mmproj-BF16.gguf": MMPROJ_SIZE}


@pytest.fixture(params=[KNOWN, UNKNOWN], ids=["a card's", "unknown"])
def repository(
    request: pytest.FixtureRequest, hub: Hub, headers: tuple[Path, dict[str, int]]
) -> tuple[str, Repository]:
    folder, sizes = headers
    served = hub.add(request.param, folder, "a" * 40)
    served.sizes = sizes
    return request.param, served


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be downloaded."""
    found: list[str] = []

    def note(listed: HubListing, chosen: Quantization, mmproj: HeldFile | None, *_: object) -> HeldModel:
        found.append(chosen.label)
        assert mmproj is not None
        return HeldModel(label=chosen.label, files=tuple(map(listed.held, chosen.files)), mmproj=mmproj)

    monkeypatch.setattr(module, "fetch_model", note)
    return found


def plan_on(type: str, free: float, total: int) -> Callable[[GGUFFacts], MemoryPlan]:
    place = DeviceBudget(type, int(free * GIB), total * GIB, host=int((free if type == "cpu" else 12) * GIB))

    def plan(facts: GGUFFacts) -> MemoryPlan:
        assert facts.weights.mmproj == MMPROJ_SIZE
        planned = plan_gguf(facts.shape, facts.weights, place)
        if fits(facts.shape, planned):
            return planned
        raise DeviceTooSmall(model="", precision=facts.quantization, device="", free=0, needed=0, other="")

    return plan


@pytest.mark.parametrize(
    ("type", "free", "total", "label"),
    [
        ("cuda", 7.3, 8, "Q4_K_M"),  # most layers beside the GPU
        ("cuda", 11.2, 12, "Q4_K_M"),
        ("cuda", 15.1, 16, "Q3_K_M"),
        ("cuda", 23.2, 24, "Q5_K_M"),
        ("cpu", 13.0, 16, "Q3_K_M"),
        ("cpu", 28.0, 32, "Q4_K_M"),
        ("mps", 17.0, 24, "Q4_K_M"),
    ],
)
def test_the_best_that_fits_is_planned_by_few_requests(
    hub: Hub,
    repository: tuple[str, Repository],
    fetched: list[str],
    type: str,
    free: float,
    total: int,
    label: str,
) -> None:
    name, _ = repository
    fetch(name, None, None, plan_on(type, free, total), lambda _: None, threading.Event())
    assert fetched == [label]
    models = [each for each in hub.served if "mmproj" not in each.file]
    assert len(models) <= (1 if name == KNOWN else 2)
    assert all(each.sent <= HEADER_RANGE for each in models)
    assert models[-1].file.endswith(f"{label}.gguf")


def test_where_nothing_fits_nothing_is_downloaded(
    hub: Hub, repository: tuple[str, Repository], fetched: list[str]
) -> None:
    for label in (None, "Q8_0"):
        with pytest.raises(DeviceTooSmall) as refused:
            fetch(repository[0], label, None, plan_on("cpu", 4.0, 8), lambda _: None, threading.Event())
        assert refused.value.message.values["precision"] == (label or "Q2_K")
    assert fetched == []
