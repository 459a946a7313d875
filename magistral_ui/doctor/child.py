"""Runs one probe in a child process: says what it finds, line by line, so that a crash loses only what comes after.

What a probe imports may hang, or end the process; its parent (`probing.py`) takes that for an answer, too.
"""

import json
import logging
import os
import sys
from importlib import import_module
from typing import Any

from magistral_ui.errors import MagistralUIError, first_line

log = logging.getLogger(__name__)
NO_CRASH_WINDOW = 0x8003
"""SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX and SEM_NOOPENFILEERRORBOX: Windows shows nothing and waits for nobody."""


def serve(target: str, arguments: str) -> None:
    """Iterate over `package.module:function`, called with JSON `arguments`, and write each mapping that comes as a line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    _crash_quietly()

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    module, _, name = target.partition(":")
    say(stage=module.rpartition(".")[2])
    try:
        for found in getattr(import_module(module), name)(**json.loads(arguments)):
            say(**found)
        say(done=True)
    except MagistralUIError as error:
        say(told=[error.message.key, dict(error.message.values)])
    except (Exception, SystemExit) as error:
        log.debug("a probe failed", exc_info=error)
        if isinstance(error, ModuleNotFoundError) and error.name:
            say(told=["doctor_reason_library", {"name": error.name.partition(".")[0]}])
        else:
            say(error=f"{type(error).__name__}: {first_line(error)}")  # type: ignore[arg-type]  # SystemExit has a text, too
    answers.close()
    os._exit(0)  # threads of libraries may not want to end


def _crash_quietly() -> None:
    """No core file of gigabytes, and no window, when a library crashes."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.SetErrorMode(NO_CRASH_WINDOW)
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
