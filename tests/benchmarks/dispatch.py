"""How often a decode step waits for the device, and how many calls of torch's dispatcher it makes; counts, so they never vary.

The logits claim to lie on a CUDA GPU, so that they are drawn from as there; the model runs on the processor that is here.
"""

from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import torch

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.running_model import RunningModel
from tests.benchmarks.requests import UniqueRequests
from tests.benchmarks.table import Row, at_most
from tests.engines.local.dispatch_count import DispatchCount
from tests.engines.local.fake_devices import Claims, claim


def rows(running: RunningModel, requests: UniqueRequests) -> Iterator[Row]:
    """Of one visitor and of eight."""
    one, eight = (decode_step(running, requests, visitors) for visitors in (1, 8))
    yield at_most("host syncs of a decode step, one visitor", 1, one.syncs)
    yield at_most("host syncs of a decode step, 8 visitors", 1, eight.syncs)
    note = f"{eight.calls} and {one.calls}"
    yield at_most("dispatcher calls of a decode step, 8 visitors ÷ one", 1.3, eight.calls / one.calls, note)


def decode_step(running: RunningModel, requests: UniqueRequests, visitors: int) -> DispatchCount:
    """What one step of so many visitors asks of torch, with the default sampling."""
    asked = [requests.make(64, 32, n) for n in range(visitors)]
    params = [SamplingParams(max_tokens=32, seed=n) for n in range(visitors)]
    generations = [running.submit(replace(each, params=own)) for each, own in zip(asked, params, strict=True)]
    forward = Decoder.__call__

    def claimed(self: Decoder, parts: list[DecoderInput]) -> torch.Tensor:
        return claim(forward(self, parts), torch.device("cuda"))

    with patch.object(Decoder, "__call__", claimed), Claims():
        for _ in range(visitors + 4):  # all are read, and have written a few tokens
            running.scheduler.step()
        with DispatchCount() as count:
            running.scheduler.step()
    for generation in generations:
        generation.stop()
    running.scheduler.step()
    return count
