"""A few visitors at once over HTTP; `make soak-crowd` has twenty, for ten minutes."""

from pathlib import Path

import pytest

from tests.soak.crowd import run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_visitors_at_once_do_not_mix(tmp_path: Path) -> None:
    assert run(tmp_path, visitors=4, seconds=1.0)["turns"] >= 8
