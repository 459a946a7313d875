"""Times llama.cpp on a model file: run by its path, with settings as JSON on its standard input; prints seconds per token,
the least so far after each run.

Needs nothing but the standard library and xllamacpp, and knows nothing of what the file stands for.
"""

import json
import os
import sys

import xllamacpp  # type: ignore[import-untyped,unused-ignore]

PROMPT = [3, 4, 5, 6]
"""Ids of ordinary tokens."""
RUNS, TOKENS = 6, 3
"""The run that other programs disturbed least counts."""


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.port = 0
    params.n_parallel, params.n_ctx = 1, 512
    params.n_batch = params.n_ubatch = 64
    params.n_gpu_layers = settings["gpu_layers"]
    if settings["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.warmup = params.ui = params.fit_params = params.use_jinja = False
    params.cache_ram_mib, params.verbosity = 0, -1
    server = xllamacpp.Server(params)
    best = seconds_of(server)
    for _ in range(RUNS):
        print(json.dumps({"seconds": best}), flush=True)
        best = min(best, seconds_of(server))
    print(json.dumps({"seconds": best}), flush=True)
    os._exit(0)  # closing the server is of no use to anybody


def seconds_of(server: "xllamacpp.Server") -> float:
    """Seconds per token of a short reply; the first one also reads the weights."""
    body = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    told = server.handle_completions(body)
    if isinstance(told, str):
        told = json.loads(told)
    return float(told["timings"]["predicted_ms"]) / 1_000 / float(told["timings"]["predicted_n"])


if __name__ == "__main__":
    main()
