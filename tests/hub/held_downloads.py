"""Lets a download of the library go on that waits for the test's Hub."""

from magistral_ui.engines.weights.library import ModelLibrary
from tests.hub.server import Hub
from tests.waiting import TIMEOUT


def let_go(models: ModelLibrary, hub: Hub, key: str) -> None:
    """What waits continues, and ends."""
    assert hub.step is not None
    hub.step.set()
    hub.step = None
    thread = models._downloads[key].thread
    assert thread is not None
    thread.join(TIMEOUT)
    assert not thread.is_alive()
