"""Ends a child that runs but answers nothing any more, as one whose graphics driver hangs; it knows no requests and no replies.

llama.cpp answers `/health` from threads that wait for no computation: a slow model is no reason.
"""

import http.client
import threading

from magistral_ui.engines.gguf.child_process import ChildProcess

LOOK_SECONDS = 15.0
"""Between two questions."""
ANSWER_TIMEOUT = 20.0
MAX_MISSES = 3
"""So many unanswered questions in a row, since a computer that wakes up or swaps may miss one."""


def watch_health(child: ChildProcess, host: str, port: int) -> None:
    """Watch a child that serves, in another thread, until it ends; one that does not answer is killed."""
    threading.Thread(target=_watch, args=(child, host, port), name=f"health of {child.pid}", daemon=True).start()


def _watch(child: ChildProcess, host: str, port: int) -> None:
    misses = 0
    while not child.wait(LOOK_SECONDS):
        misses = 0 if _answers(host, port) else misses + 1
        if misses == MAX_MISSES:
            child.end_silent()
            return


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT)
    try:
        connection.request("GET", "/health")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
