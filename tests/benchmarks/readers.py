"""Many readers of one running reply, without a browser: what an update costs the server stands out of its rest."""

import json
import threading
import time

from tests.benchmarks.chromium import Server
from tests.soak.page_client import PageClient

READERS = 20


def server_cost(server: Server, length: int, seconds: float) -> float:
    """Milliseconds of the server's CPU per update at `length` characters of reasoning, for each of `READERS`."""
    door = PageClient(server.url)
    over = threading.Event()
    count = int(10 * (seconds + 20))
    door.say(json.dumps({"reasoning": length, "settle": 1, "count": count, "pace": 0.1, "group": 10}))
    begun = threading.Barrier(READERS + 1, timeout=60)

    def read() -> None:
        with door.reading() as lines:
            chunks = lines.iter_raw()
            next(chunks)  # all that is there already
            begun.wait()
            while not over.is_set() and next(chunks, None):
                pass

    crowd = [threading.Thread(target=read) for _ in range(READERS)]
    for each in crowd:
        each.start()
    begun.wait()
    time.sleep(3)
    before = server.ask("count")
    time.sleep(seconds)
    after = server.ask("count")
    over.set()
    for each in crowd:
        each.join()
    door.act("turns/stop")
    door.close()
    return 1000 * (after["cpu"] - before["cpu"]) / (after["count"] - before["count"])
