"""The servers that are installed by hand: without SERVERS_FOLDER, their tests are not looked at (`make test-servers`)."""

import os
from pathlib import Path

import pytest

FOLDER = os.environ.get("SERVERS_FOLDER")
collect_ignore_glob = [] if FOLDER else ["test_*.py"]


@pytest.fixture(scope="session")
def servers_folder() -> Path:
    assert FOLDER
    return Path(FOLDER)
