"""A process to be killed: visitors who talk without a pause, each acknowledgement on a line; it does not know when it dies."""

import itertools
import json
import sys
import threading
from pathlib import Path
from typing import Any

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.errors import AlreadyAnswering
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.visitors import TabState, Visitors
from tests.scripted_engine import Pause, ScriptedEngine

speaking = threading.Lock()


def tell(**facts: Any) -> None:
    """One line that the killer reads; whole or not at all."""
    with speaking:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def script(request: Any) -> list[Any]:
    """A reply that names whose it is in every piece, long enough to be cut."""
    said = request.prompt.turns[-1].text
    return [step for number in range(40) for step in (Reasoning(f"[{said}] {number} "), Pause(0.002))] + [
        step for number in range(40) for step in (Answer(f"[{said}] {number} "), Pause(0.002))
    ]


def talk(visitors: Visitors, number: int, place: TabState | None, life: str) -> None:
    """One visitor, for ever: a message, its reply or a part of it, now and then a new conversation."""
    place, session = visitors.open(place)
    tell(visitor=number, place=place)
    for turn in itertools.count():
        text = f"visitor {number} life {life} turn {turn}"
        try:
            running = session.say(text, (), SamplingParams())
        except AlreadyAnswering:
            session.stop()
            continue
        tell(visitor=number, place=place, said=text)
        if running.generation.wait(0.05 if turn % 3 else 5.0):
            session.save()
        else:
            session.stop()
            running.generation.wait(5.0)
        if turn % 5 == 4:
            place, session = visitors.begin(place)


def main() -> None:
    """`writing_process.py FOLDER LIFE`: places of earlier lives come as JSON on the standard input."""
    folder, life = Path(sys.argv[1]), sys.argv[2]
    places: dict[str, TabState] = json.loads(sys.stdin.readline())
    visitors = Visitors(ScriptedEngine(script), history=History(folder))
    if visitors.save_error:
        tell(trouble=visitors.save_error.key)
        return
    for number in range(6):
        place = places.get(str(number))
        threading.Thread(target=talk, args=(visitors, number, place, life), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
