"""The GPU benchmark's own code, on a processor with a tiny model: all rows have figures, or a reason why not, in any time."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from magistral_ui.engines.local.cuda_graphs import StepGraphs
from magistral_ui.engines.local.cuda_recorder import Recorder
from magistral_ui.engines.local.decoder import Decoder
from tests.benchmarks.gpu import main
from tests.engines.local.recorded_steps import Tape

OFF = {"nothing is compiled here"}
NOISE = "half of the layers took no less time: what one costs is lost in the noise"
"""Of so small a model."""


@pytest.fixture(autouse=True)
def _quick_collections() -> Iterator[None]:
    """Garbage is collected before each measurement: not among what all the libraries have created."""
    gc.freeze()
    yield
    gc.unfreeze()


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--device", "cpu", "--tiny", "--model", str(folder), *more]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode steps are recorded by what stands in for CUDA."""

    def record(decoder: Decoder, recorder: Recorder | None = None) -> None:
        assert decoder._step is not None
        decoder.graphs = StepGraphs(decoder._step, Tape(), decoder.pool, decoder.width, (1, 8))
        decoder.graphs.record()

    monkeypatch.setattr(Decoder, "record", record)


@pytest.mark.usefixtures("recorded")
def test_every_piece_is_measured_or_says_that_it_is_off(vision_folder: Path) -> None:
    rows = main(arguments(vision_folder, "--precision", "float32"))
    missing = {row.what: row.note for row in rows if row.reached is None}
    assert set(missing.values()) <= OFF | {NOISE}, missing
    assert all(row.reached > 0 for row in rows if row.reached is not None)
    assert len({row.what for row in rows}) == len(rows) >= 19


def test_without_time_it_ends_with_what_it_has(vision_folder: Path) -> None:
    rows = main(arguments(vision_folder, "--minutes", "0"))
    assert {row.note for row in rows} == {"no time was left"}
