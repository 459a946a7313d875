"""Runs llama.cpp's server with a folder's model until it is told to end: `python llama_cpp.py FOLDER PORT [SLOTS] [SETTINGS]`.

It is a process of its own, so that it can be killed in the middle of an answer, as a server is.
"""

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import xllamacpp


def main(folder: Path, port: int, slots: int, settings: dict[str, Any]) -> None:
    """Serve `folder` on `port` of this machine; one thread, because two spin against each other on a busy machine."""
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "model.gguf")
    if (folder / "mmproj.gguf").exists():
        params.mmproj.path = str(folder / "mmproj.gguf")
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 8_192 * slots, slots, 1
    params.warmup, params.ui, params.endpoint_metrics = False, False, True
    params.use_jinja, params.model_alias = True, {"demo"}
    params.chat_template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for name, value in settings.items():
        setattr(params, name, value)
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(0.2):
        pass


if __name__ == "__main__":
    slots, settings = [*sys.argv[3:], *("4", "{}")[len(sys.argv[3:]) :]]
    main(Path(sys.argv[1]), int(sys.argv[2]), int(slots), json.loads(settings))
