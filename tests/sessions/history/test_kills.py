"""A few kills of a process under load; `make soak` does two hundred."""

import sys
from pathlib import Path

import pytest

from tests.soak.kills import run


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is what is tested")
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    known = run(tmp_path / "data", rounds=3, seed=7)
    assert known.said
    assert len(known.owners) == 6
