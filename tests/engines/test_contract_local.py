"""The contract suite on the in-process engine with the demo model, and what only a real model shows."""

import time
from collections.abc import Iterator

import pytest

from magistral_ui.engines.base import Engine, Loading
from magistral_ui.engines.local.engine import LocalEngine
from tests.engines.contract import DemoContract


def loaded() -> LocalEngine:
    engine = LocalEngine("demo")
    engine.start()
    deadline = time.monotonic() + 60
    while isinstance(engine.status(), Loading) and time.monotonic() < deadline:
        time.sleep(0.02)
    return engine


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalEngine]:
    engine = loaded()
    yield engine
    engine.close()


class TestLocalEngine(DemoContract):
    """The suite."""

    @pytest.fixture
    def closing_engine(self) -> Engine:
        return loaded()

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return LocalEngine("demo")
