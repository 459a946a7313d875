"""The contract suite on the engine for GGUF files, with the demo model."""

from collections.abc import Iterator

import pytest

from magistral_ui.engines.base import Engine, GenerationRequest
from magistral_ui.engines.gguf.engine import GGUFEngine
from tests.engines.contract import EngineContract
from tests.engines.gguf.demo import loaded, opened


@pytest.fixture(scope="module")
def shared() -> Iterator[GGUFEngine]:
    engine = loaded()
    yield engine
    engine.close()


class TestGGUFEngine(EngineContract):
    """The suite."""

    def ask_long(self, engine: Engine) -> GenerationRequest:
        return self.ask(engine, "Count from 1 to 200.", max_tokens=4000)

    @pytest.fixture
    def engine(self, shared: GGUFEngine) -> Engine:
        return shared

    @pytest.fixture
    def closing_engine(self) -> Engine:
        return loaded()

    @pytest.fixture
    def unready_engine(self) -> Engine:
        return opened()
