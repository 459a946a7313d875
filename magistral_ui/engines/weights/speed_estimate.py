"""Estimates how long a processor takes for a token, so that who has to wait knows it before; it measures nothing."""

import torch

from magistral_ui.engines.weights.devices import Device, is_slow
from magistral_ui.errors import Message
from magistral_ui.models.memory import MemoryPlan
from magistral_ui.models.shape import ModelShape

CPU_SECONDS_PER_BILLION = {"nf4": 1.03, "int8": 0.64, "bfloat16": 0.24}
"""On one thread without AVX-512, for a billion weights.

Measured for nf4 on Magistral's layers (22.8 s for all of them); the others by their ratios on a model of 415 million parameters.
"""
BYTES_PER_WEIGHT = {"nf4": 4.5, "int8": 4.0, "bfloat16": 2.0}
"""Bytes that pass through memory for each weight: nf4 and int8 are unpacked there first."""
MEMORY_BANDWIDTH = 40e9
"""Bytes that a usual computer's memory moves in a second."""
SLOW_TOKEN_SECONDS = 2.0
"""Seconds for a token from which it is worth a warning: an answer of 1,000 tokens then takes half an hour."""


def slow_pace(shape: ModelShape, plan: MemoryPlan, device: Device) -> Message | None:
    """The warning for a model that would write very slowly here."""
    if plan.precision not in CPU_SECONDS_PER_BILLION or not is_slow(device):
        return None
    weights = shape.linear_parameters
    computing = CPU_SECONDS_PER_BILLION[plan.precision] * weights / 1e9 / max(1, torch.get_num_threads())
    seconds = max(computing, BYTES_PER_WEIGHT[plan.precision] * weights / MEMORY_BANDWIDTH)
    return Message("slow_processor", {"seconds": round(seconds)}) if seconds >= SLOW_TOKEN_SECONDS else None
