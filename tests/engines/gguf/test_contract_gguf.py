"""The contract suite on the engine for GGUF files, with the demo model."""

from collections.abc import Iterator

import pytest

from magistral_ui.engines.base import Engine
from magistral_ui.engines.gguf.engine import GGUFEngine
from tests.engines.contract import DemoContract
from tests.engines.gguf.demo import loaded, opened


@pytest.fixture(scope="module")
def shared() -> Iterator[GGUFEngine]:
    engine = loaded()
    yield engine
    engine.close()


class TestGGUFEngine(DemoContract):
    """The suite."""

    @pytest.fixture
    def closing_engine(self) -> Engine:
        return loaded()

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return opened()
