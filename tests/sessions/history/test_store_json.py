"""Values to JSON and back: nothing is lost, and files of older and newer versions can be read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.reply import Reply
from magistral_ui.sessions.history.store import from_json, to_json


@dataclass(frozen=True)
class Inner:
    number: int = 0


@dataclass(frozen=True)
class Outer:
    name: str
    share: float = 0.0
    inner: Inner | None = None
    kind: Literal["a", "b"] = "a"
    several: tuple[Inner, ...] = ()
    table: Mapping[str, str | int | float] = field(default_factory=dict)
    by_number: dict[int, str] = field(default_factory=dict)


inners = st.builds(Inner, st.integers())
texts = st.text(st.characters(codec="utf-8"))
outers = st.builds(
    Outer,
    texts,
    st.floats(allow_nan=False),
    st.none() | inners,
    st.sampled_from(["a", "b"]),
    st.lists(inners).map(tuple),
    st.dictionaries(texts, texts | st.integers() | st.floats(allow_nan=False)),
    st.dictionaries(st.integers(), texts),
)


@given(outers)
def test_nothing_is_lost(value: Outer) -> None:
    assert from_json(Outer, json.dumps(to_json(value))) == value


def test_a_missing_field_keeps_its_default_and_an_unknown_one_is_left_out() -> None:
    assert from_json(Outer, '{"name": "x", "from_the_future": [1]}') == Outer("x")
    assert from_json(Outer, '{"name": "x", "inner": {"number": 3, "more": 1}}') == Outer("x", inner=Inner(3))


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"name": 1},
        {"name": "x", "kind": "c"},
        {"name": "x", "several": 7},
        {"name": "x", "inner": 7},
        {"name": "x", "inner": {"number": "7"}},
        {"name": "x", "inner": {"number": True}},
        {"name": "x", "inner": {"number": 7.0}},
        {"name": "x", "table": {"a": None}},
    ],
)
def test_what_does_not_fit_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        from_json(Outer, json.dumps(data))


def test_an_error_shows_no_content() -> None:
    for data in ('{"name": 1234567}', '{"name": "1234567'):
        with pytest.raises(ValueError) as refused:
            from_json(Outer, data)
        assert "1234567" not in str(refused.value)


def test_a_field_can_be_left_out_and_given_again() -> None:
    value = Outer("x", 1.5)
    data = to_json(value, "name")
    assert "name" not in data
    assert from_json(Outer, json.dumps(data), name="x") == value


def test_every_field_of_a_reply_can_be_written_and_read() -> None:
    assert from_json(Reply, json.dumps(to_json(Reply()))) == Reply()
    assert to_json(Reply()).keys() == {each.name for each in fields(Reply)}
