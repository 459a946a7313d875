"""Frees the memory of an engine that was closed: what Python still holds of it, and what the device's allocator keeps."""

import gc
import sys


class FreedMemory:
    """Where objects were exempt from garbage collection, they are so again after the next load."""

    def __init__(self) -> None:
        self._was_frozen = False

    def free(self) -> None:
        """Collect all garbage, also among what was exempt: a model that was frozen would stay for ever."""
        self._was_frozen = gc.get_freeze_count() > 0 or self._was_frozen
        gc.unfreeze()
        gc.collect()
        if "torch" in sys.modules:
            from magistral_ui.engines.weights.devices import empty_device_cache

            empty_device_cache()

    def freeze_again(self) -> None:
        """Once a model is loaded, as app.py does after the first load."""
        if self._was_frozen:
            gc.collect()
            gc.freeze()
