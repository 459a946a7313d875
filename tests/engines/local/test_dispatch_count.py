"""A decode step waits for the device once, however many take part; and the count that says so counts what waits."""

from collections.abc import Callable

import pytest
import torch

from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.loader import Loaded
from tests.benchmarks.dispatch import decode_step
from tests.benchmarks.requests import UniqueRequests
from tests.engines.conftest import CPU
from tests.engines.local.dispatch_count import DispatchCount

NUMBERS = torch.arange(6.0)


@pytest.mark.parametrize("visitors", [1, 8])
def test_a_decode_step_waits_once(vision_loaded: Loaded, visitors: int) -> None:
    assert decode_step(RunningModel(vision_loaded, CPU), UniqueRequests(), visitors).syncs == 1


WAITING: list[Callable[[], object]] = [
    lambda: NUMBERS[1].item(),
    lambda: NUMBERS.tolist(),
    lambda: NUMBERS.cpu(),
    lambda: int(NUMBERS[1]),
    lambda: bool(NUMBERS[1] > 0),
    lambda: 3.0 in NUMBERS,
    lambda: NUMBERS.nonzero(),
    lambda: NUMBERS[NUMBERS > 2],
    lambda: NUMBERS.unique(),
    lambda: NUMBERS.repeat_interleave(torch.arange(6)),
]


@pytest.mark.parametrize("waiting", range(len(WAITING)))
def test_what_waits_is_counted(waiting: int) -> None:
    with DispatchCount() as count:
        WAITING[waiting]()
    assert count.syncs == 1


def test_what_does_not_wait_is_not_counted() -> None:
    with DispatchCount() as count:
        (NUMBERS * 2).topk(2).values.exp_()
        NUMBERS[torch.tensor([1, 2])].to(torch.float64)
        NUMBERS.repeat_interleave(torch.arange(6), output_size=15)
    assert count.syncs == 0
    assert count.calls >= 6
