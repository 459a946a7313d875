"""The table of parameters: what is taken, what is refused, and that nothing else is."""

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.sampling import PARAMETERS, SamplingParams, effort_of
from magistral_ui.errors import ParameterRefused


def test_the_table_and_the_class_name_the_same_parameters_with_the_same_defaults() -> None:
    assert {f.name: f.default for f in fields(SamplingParams)} == {p.name: p.default for p in PARAMETERS.values()}


@pytest.mark.parametrize("name", PARAMETERS)
def test_both_bounds_are_taken_and_what_lies_beyond_is_refused(name: str) -> None:
    parameter = PARAMETERS[name]
    for bound in (parameter.low, parameter.high):
        assert getattr(SamplingParams().changed({name: bound}), name) == bound
    for beyond in (parameter.low - 1, parameter.high + 1):
        with pytest.raises(ParameterRefused) as refused:
            SamplingParams().changed({name: beyond})
        assert refused.value.message.key == "parameter_out_of_range"
        assert refused.value.message.values == {"name": name, "low": parameter.low, "high": parameter.high}


@pytest.mark.parametrize("value", ["0.5", True, [], {}, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", PARAMETERS)
def test_what_is_no_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(ParameterRefused) as refused:
        SamplingParams().changed({name: value})
    assert refused.value.message.key == "parameter_not_a_number"


@pytest.mark.parametrize("name", [p.name for p in PARAMETERS.values() if p.integer])
def test_whole_numbers_may_come_as_floats_but_not_with_a_fraction(name: str) -> None:
    value = getattr(SamplingParams().changed({name: 7.0}), name)
    assert value == 7
    assert type(value) is int
    with pytest.raises(ParameterRefused) as refused:
        SamplingParams().changed({name: 7.5})
    assert refused.value.message.key == "parameter_not_whole"


@pytest.mark.parametrize("name", [p.name for p in PARAMETERS.values() if not p.optional])
def test_only_optional_parameters_may_be_none(name: str) -> None:
    with pytest.raises(ParameterRefused):
        SamplingParams().changed({name: None})


def test_optional_parameters_may_be_none() -> None:
    assert (
        SamplingParams(seed=3, reasoning_budget=5).changed({"seed": None, "reasoning_budget": None}) == SamplingParams()
    )


@pytest.mark.parametrize(
    ("budget", "effort"),
    [
        *((0, "none"), (1, "low"), (512, "low"), (1_400, "low"), (1_500, "medium"), (4_096, "medium")),
        *((11_000, "medium"), (12_000, "high"), (131_072, "high"), (None, "high")),
    ],
)
def test_an_effort_is_the_one_whose_tokens_are_nearest(budget: int | None, effort: str) -> None:
    assert effort_of(budget) == effort


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParameterRefused) as refused:
        SamplingParams().changed({"temprature": 1})
    assert refused.value.message.key == "parameter_unknown"
    assert refused.value.message.values["name"] == "temprature"
    assert "temperature" in str(refused.value.message.values["known"])


@given(
    st.sampled_from(list(PARAMETERS)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just(-(10**400)),
)
def test_any_value_is_taken_within_bounds_or_refused(name: str, value: object) -> None:
    parameter = PARAMETERS[name]
    try:
        taken = getattr(SamplingParams().changed({name: value}), name)
    except ParameterRefused:
        return
    assert taken is None if value is None else parameter.low <= taken <= parameter.high


def test_a_seed_is_drawn_once_and_kept() -> None:
    params = SamplingParams().with_seed()
    assert params.seed is not None
    assert params.with_seed() is params
    assert SamplingParams(seed=0).with_seed().seed == 0
