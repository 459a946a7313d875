"""Counts the stations of one message: the package's files that it enters on its way to the demo model and back.

    python -m tests.benchmarks.stations [--list] [--shared]

The page is a real one on loopback; the client, in this process, sends what the page's script sends and enters no file of the
package. Profilers on all threads note the first call into each file, from the POST to the last event of the reply. One message
is sent before, so that neither what is only imported nor what is only prepared once counts.
"""

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import magistral_ui
from tests.soak.page_client import PageClient

PACKAGE = Path(magistral_ui.__file__).parent
HANDLER = "ui/chat.py"
"""Where the page's own code begins; what comes before only lets the request through."""
LOAD_TIMEOUT = 120.0
SETTLE_SECONDS = 2.0
"""For the first reply to be saved, which would count otherwise."""
NEVER = 10**9
"""Seconds between two deletions of old conversations: one that falls into the reply would count."""


@dataclass(frozen=True, slots=True)
class Station:
    """A file of the package, and the call by which it was entered."""

    file: str
    function: str
    thread: str


@dataclass(slots=True)
class Profiler:
    """The stations that were entered while it records, in the order of their first calls."""

    records: bool = False
    stations: dict[str, Station] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """What Python calls for each call on a thread."""
        code = frame.f_code
        if not self.records or event != "call" or code.co_filename in self.stations or code.co_name == "<module>":
            return
        if PACKAGE in Path(code.co_filename).parents:
            file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            self.stations.setdefault(code.co_filename, Station(file, code.co_name, threading.current_thread().name))


def stations_of_a_message(folder: Path, *, shared: bool) -> list[Station]:
    """Serve the demo model, and profile one message to it."""
    profiler = Profiler()
    threading.setprofile(profiler)  # for all threads that begin from now on
    sys.setprofile(profiler)

    from magistral_ui.engines.base import Ready
    from magistral_ui.engines.local.engine import LocalEngine
    from magistral_ui.sessions import session_store
    from magistral_ui.sessions.history.database import History
    from magistral_ui.sessions.limits import SHARED
    from magistral_ui.sessions.visitors import Visitors
    from magistral_ui.ui.launch import close, launch
    from magistral_ui.ui.page import build_page

    session_store.PURGE_INTERVAL = NEVER
    engine = LocalEngine("demo")
    engine.start()
    visitors = Visitors(engine, SHARED if shared else None, History(folder))
    page = build_page(engine, visitors)
    client = PageClient(launch(page, visitors))
    try:
        until = time.monotonic() + LOAD_TIMEOUT
        while not isinstance(engine.status(), Ready):
            if time.monotonic() > until:
                raise TimeoutError(engine.status())
            time.sleep(0.2)
        client.say("What is 3 + 4?")
        client.follow()
        time.sleep(SETTLE_SECONDS)
        profiler.records = True
        client.say("What is 47 + 26?")
        with client.reading() as reply:
            reply.read()
        profiler.records = False
    finally:
        client.close()
        close(page)
        visitors.close()
        engine.close()
    return list(profiler.stations.values())


def main() -> None:
    """Print how many stations there are, and with `--list` which."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="name each file with the function that was called first")
    parser.add_argument("--shared", action="store_true", help="with the limits of a page that others reach")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stations = stations_of_a_message(Path(folder), shared=options.shared)
    if options.list:
        for number, each in enumerate(stations, start=1):
            print(f"{number:3}  {each.file:42} {each.function:26} {each.thread}")
    handler = [each.file for each in stations].index(HANDLER)
    thread = stations[handler - 1].thread  # of the server, which calls it; others may be busy with something else
    before = sum(each.thread == thread for each in stations[:handler])
    print(
        f"{len(stations)} files of the package are entered by one message, {before} of them before the page's handler."
    )


if __name__ == "__main__":
    main()
