"""The checks of tests/gpu, as far as a processor allows: they hold for what stands in for a card, and fail if that is wrong."""

from collections.abc import Iterator

import pytest
import torch

from magistral_ui.engines.local.cuda_graphs import StepGraphs
from magistral_ui.engines.local.decode_step import StepInputs
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.local.paged_attention import ReferenceAttention
from magistral_ui.engines.weights.loader import Loaded
from tests.engines.local.recorded_steps import Tape
from tests.gpu import test_magistral_shape as on_gpu
from tests.gpu.step_checks import check_steps

CPU = torch.device("cpu")


class ShortSighted(ReferenceAttention):
    """Each row misses its own key."""

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        less = StepInputs(inputs.tokens, inputs.positions, inputs.slots, inputs.tables, inputs.lengths - 1)
        return super().attend(queries, keys, values, less, scale)


@pytest.fixture
def decoder(vision_loaded: Loaded) -> Iterator[Decoder]:
    decoder = Decoder(vision_loaded.model)
    yield decoder
    decoder.graphs = None


def choose(decoder: Decoder, attention: ReferenceAttention | None = None) -> None:
    decoder.decode_with({CPU: attention or ReferenceAttention()})


def record(decoder: Decoder) -> None:
    assert decoder._step is not None
    decoder.graphs = StepGraphs(decoder._step, Tape(), decoder.pool, decoder.width)
    decoder.graphs.record()
    assert decoder.graphs.buckets


@pytest.mark.parametrize(("sequences", "drafts"), [(1, 0), (3, 2)])
def test_steps_over_pages_and_recorded_ones_hold(decoder: Decoder, sequences: int, drafts: int) -> None:
    check_steps(decoder, sequences, drafts, choose, record)
    assert decoder.pool.used == 0


def test_a_kernel_that_misses_a_key_is_caught(decoder: Decoder) -> None:
    with pytest.raises(AssertionError, match="over pages"):
        check_steps(decoder, 2, 0, lambda each: choose(each, ShortSighted()), record)


def test_a_prompt_is_read_in_chunks(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "CHUNK", 16)
    assert torch.isfinite(on_gpu.read(decoder, 40)).all()
    assert decoder.pool.used == 0
