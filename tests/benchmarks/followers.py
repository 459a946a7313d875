"""One process with the remote engine and many replies, each followed as the page follows it; prints what that cost as JSON.

`python -m tests.benchmarks.followers BASE_URL COUNT`. It has no browsers and no Gradio: it is the engine and its followers alone.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from dataclasses import dataclass, field

from magistral_ui.chat.events import Finished
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.sessions.live_view import watch
from tests.engines.remote.conftest import connected

SPREAD = 2.0
"""Seconds over which the visitors come."""


@dataclass(slots=True)
class Seen:
    """What one follower saw."""

    lags: list[float] = field(default_factory=list)
    """Milliseconds from the sending of the newest token to its being shown."""
    text: str = ""
    whole: bool = False


async def follow(engine: RemoteEngine, after: float) -> Seen:
    """One visitor."""
    await asyncio.sleep(after)
    seen = Seen()
    request = GenerationRequest(Prompt((), (UserTurn("hi"),)), SamplingParams(seed=1, max_tokens=100_000))
    async for view in watch(engine.submit(request)):
        seen.text += view.reasoning + view.answer
        if view.draft.last is None and seen.text:
            seen.lags.append(time.monotonic() * 1000 - float(seen.text.split()[-1].split(":")[1]))
        seen.whole = isinstance(view.draft.last, Finished)
    return seen


def complete(seen: Seen) -> bool:
    """Whether every token is there, once and in its order."""
    numbers = [int(token.split(":")[0]) for token in seen.text.split()]
    return seen.whole and bool(numbers) and numbers == list(range(len(numbers)))


async def measure(engine: RemoteEngine, count: int) -> dict[str, object]:
    """Follow `count` replies at once."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    all_seen = await asyncio.gather(*(follow(engine, SPREAD * n / count) for n in range(count)))
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lags = sorted(lag for seen in all_seen for lag in seen.lags)
    tokens = sum(len(seen.text.split()) for seen in all_seen)
    return {
        "followers": count,
        "incomplete": sum(not complete(seen) for seen in all_seen),
        "tokens": tokens,
        "seconds": round(wall, 1),
        "cores": round(cpu / wall, 2),
        "microseconds_per_token": round(cpu / tokens * 1e6, 1) if tokens else None,
        "lag_median_ms": round(statistics.median(lags)) if lags else None,
        "lag_p99_ms": round(lags[int(len(lags) * 0.99)]) if lags else None,
        "memory_mb": after.ru_maxrss // 1024,
    }


if __name__ == "__main__":
    remote = connected(sys.argv[1])
    print(json.dumps(asyncio.run(measure(remote, int(sys.argv[2])))), flush=True)
    remote.close()
