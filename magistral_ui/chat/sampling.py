"""Sampling parameters with their bounds and steps, and presets. There are no stop sequences: a reply ends with its own token."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from magistral_ui.errors import ParameterRefused

MAX_SEED = 2**53 - 1
"""The largest integer that JSON in a browser represents exactly."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its bounds are inclusive; `integer` ones refuse fractions; `optional` ones may be None.

    `common` ones are shown first; a `logarithmic` one's slider takes equal steps for equal factors.
    """

    name: str
    default: float | int | None
    low: float | int
    high: float | int
    step: float | int
    integer: bool = False
    optional: bool = False
    common: bool = False
    logarithmic: bool = False

    def check(self, value: object) -> float | int | None:
        """`value` in the parameter's own type. Raises ParameterRefused."""
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ParameterRefused("parameter_not_a_number", name=self.name)
        # math.isfinite fails on whole numbers that no float can hold; those are out of range, but numbers.
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterRefused("parameter_not_a_number", name=self.name)
        if self.integer and value != int(value):
            raise ParameterRefused("parameter_not_whole", name=self.name)
        if not self.low <= value <= self.high:
            raise ParameterRefused("parameter_out_of_range", name=self.name, low=self.low, high=self.high)
        return int(value) if self.integer else float(value)

    def json_schema(self) -> dict[str, object]:
        """Its type and bounds as a JSON schema, leaving aside that an optional one may be null."""
        return {"type": "integer" if self.integer else "number", "minimum": self.low, "maximum": self.high}


PARAMETERS = {
    p.name: p
    for p in (
        Parameter("temperature", 0.7, 0.0, 2.0, 0.05, common=True),
        Parameter("top_p", 0.95, 0.01, 1.0, 0.01),
        Parameter("top_k", 0, 0, 1000, 1, integer=True),
        Parameter("min_p", 0.0, 0.0, 1.0, 0.01),
        Parameter("repetition_penalty", 1.0, 0.5, 2.0, 0.05),
        Parameter("max_tokens", 40_960, 1, 131_072, 1, integer=True, common=True, logarithmic=True),
        Parameter("reasoning_budget", None, 0, 131_072, 1, integer=True, optional=True, common=True),
        Parameter("seed", None, 0, MAX_SEED, 1, integer=True, optional=True),
    )
}


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One request's parameters.

    `temperature` 0 always takes the most likely token; `top_k` 0 and `min_p` 0 are off. `max_tokens` bounds reasoning
    and answer together; `reasoning_budget` bounds the reasoning alone (0: none at all; None: no bound). Equal parameters
    with an equal `seed` give equal tokens; None lets the session draw a seed, which it keeps with the reply.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 40_960
    reasoning_budget: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = PARAMETERS[each.name].check(getattr(self, each.name))
            object.__setattr__(self, each.name, value)

    def changed(self, changes: Mapping[str, object]) -> "SamplingParams":
        """These parameters with `changes`; ParameterRefused for an unknown name or a bad value."""
        for name in changes:
            if name not in PARAMETERS:
                raise ParameterRefused("parameter_unknown", name=name, known=", ".join(PARAMETERS))
        return replace(self, **changes)  # type: ignore[arg-type]  # checked by name above, by value in __post_init__

    def with_seed(self, source: random.Random | None = None) -> "SamplingParams":
        """The same with a seed: its own, or one drawn from `source`."""
        if self.seed is not None:
            return self
        return replace(self, seed=(source or random.SystemRandom()).randrange(2**32))


Effort = Literal["none", "low", "medium", "high"]
"""The reasoning effort, for models and servers that take a word instead of a number of tokens."""
EFFORTS: tuple[Effort, ...] = ("none", "low", "medium", "high")
"""All of them, the least first."""
EFFORT_TOKENS: dict[Effort, int] = {"low": 512, "medium": 4_096, "high": 32_768}
"""The reasoning budget that each effort stands for, in tokens."""


def effort_of(budget: int | None) -> Effort:
    """The effort for a reasoning budget: the one whose tokens are nearest, as a ratio."""
    if budget is None:
        return "high"
    if budget == 0:
        return "none"
    return min(EFFORT_TOKENS, key=lambda effort: abs(math.log(budget / EFFORT_TOKENS[effort])))


def nearest_effort(wanted: Effort, taken: Sequence[Effort]) -> Effort:
    """The one of `taken` that is nearest: only `none` means no reasoning, however near it is to another effort."""
    near = [each for each in taken if (each == "none") == (wanted == "none")] or taken
    return min(near, key=lambda each: abs(EFFORTS.index(each) - EFFORTS.index(wanted)))


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of values: a card's own with `changes`. It never contains the seed, which is the visitor's own."""

    key: str
    changes: Mapping[str, float | int | None]

    def of(self, own: SamplingParams) -> SamplingParams:
        """The values for a model whose card has the values `own`."""
        return own.changed(self.changes)


PRESETS = (
    Preset("own", {}),
    Preset("precise", {"temperature": 0.0}),
    Preset("balanced", {"temperature": 0.4}),
    Preset("creative", {"temperature": 1.0, "top_p": 1.0, "min_p": 0.05}),
    Preset("quick", {"reasoning_budget": 512}),
    Preset("long", {"max_tokens": PARAMETERS["max_tokens"].high}),
)
"""The presets on the page: `preset_<key>` is a preset's name, `preset_<key>_help` says in one line what it is for."""
