"""Logs events for the operator: one JSON object a line, with numbers and names, never what was said."""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TextIO

log = logging.getLogger(__name__)
FACTS_ATTRIBUTE = "facts"
OUR_NAME = __name__.partition(".")[0]


def log_event(event: str, /, **facts: str | int | float | None) -> None:
    """Write down that `event` happened; nobody may put into `facts` what people write."""
    log.info(event, extra={FACTS_ATTRIBUTE: facts})


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON. Of an exception only the kind and the places in the code: its words may quote people."""

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, FACTS_ATTRIBUTE, None)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            # Others may write anything into theirs.
            "event": record.getMessage() if record.name.partition(".")[0] == OUR_NAME else "log",
            "source": record.name,
        }
        if isinstance(facts, Mapping):
            line |= facts
        if record.exc_info and record.exc_info[0]:
            line |= {"error": record.exc_info[0].__name__, "at": _places(record)}
        return json.dumps(line, ensure_ascii=True, default=str)


def start_json_log(stream: TextIO | None = None) -> Callable[[], None]:
    """From now on all log records go to `stream` (else stderr) as JsonFormatter; returns what ends that.

    To be called once the page is served: only then has uvicorn set up its own log, which quotes what was sent.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root, ours, theirs = logging.getLogger(), logging.getLogger(OUR_NAME), logging.getLogger("uvicorn")
    before = ours.level, theirs.handlers, theirs.propagate
    ours.setLevel(logging.INFO)
    theirs.handlers, theirs.propagate = [], True
    root.addHandler(handler)

    def end() -> None:
        root.removeHandler(handler)
        ours.setLevel(before[0])
        _, theirs.handlers, theirs.propagate = before

    return end


def _places(record: logging.LogRecord) -> list[str]:
    assert record.exc_info
    frames = traceback.extract_tb(record.exc_info[2])
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
