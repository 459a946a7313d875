"""Reads a generation's events as they come, as a test that acts in the middle of a reply needs them; the package only takes."""

from collections.abc import Iterator

from magistral_ui.chat.events import LAST, Event
from magistral_ui.engines.generation import Generation

POLL_INTERVAL = 0.002
"""Seconds between two looks."""


def follow(generation: Generation, start: int = 0) -> Iterator[Event]:
    """The events from number `start` on, waiting for new ones, up to the Finished or Failed."""
    while True:
        ended = generation.ended  # asked before the events are taken: what has ended then is complete
        for stamped in generation.take(start):
            start += 1
            yield stamped.event
            if isinstance(stamped.event, LAST):
                return
        if ended:
            return
        generation.wait(POLL_INTERVAL)
