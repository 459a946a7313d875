"""Runs llama.cpp's server on loopback, as its standard input asks, and ends with the process that started it.

It is run by its path and imports nothing of this package. The first line of its standard input is a JSON object; the key is in
it, since arguments and environments are visible to other users. On its standard output come llama.cpp's lines about loading,
and one JSON object: where it serves, which devices there are, how fast the model is, or that it failed. Reasons are on standard
error.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

KEPT_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""What a terminal or a service manager sends to all processes: the page saves its replies first, then it ends this one."""
POLL_SECONDS = 1.0
MIN_IMAGE_TOKENS, MAX_IMAGE_TOKENS = 1, 3_025
"""Any size that the page's own scaling leads to, so that llama.cpp scales no image again: by default, it takes 8 to 1,024.
The largest image that Mistral's models take has 55 × 55 tokens, without those that end its rows."""
ERRORS_ONLY = 1
"""llama.cpp's verbosity: the lines above it may hold text of prompts."""
SPARE_HTTP_THREADS = 8
LOG_TIMEOUT = 20.0
"""Seconds for the page to read the reason of a failure."""
TIMED_PROMPT = [3, 4, 5, 6]
"""Ids of ordinary tokens."""
TIMED_REPLIES, TIMED_TOKENS = 7, 3
"""The first reply also reads the weights."""


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--watch":
        watch(int(sys.argv[2]), int(sys.argv[3]))
        return
    for name in KEPT_SIGNALS:
        _ignore(name)
    answers = os.dup(1)  # llama.cpp moves the standard output elsewhere, so that only its own lines reach it

    def say(value: dict[str, Any]) -> None:
        os.write(answers, f"\n{json.dumps(value)}\n".encode())  # the first break ends a line that is being written

    told = json.loads(sys.stdin.buffer.readline() or b"{}")
    sys.path[:] = told["path"]
    _offer_for_out_of_memory()
    _write_no_core()
    if told.get("watcher") or not _end_when_stdin_closes():
        _start_watch(told["parent"])
    try:
        import xllamacpp
    except ImportError as error:
        say({"failed": "import", "detail": str(error), "missing": isinstance(error, ModuleNotFoundError)})
        return
    if told.get("devices"):
        say({"devices": devices(xllamacpp), "system": xllamacpp.get_system_info()})
        return
    try:
        server = xllamacpp.Server(parameters(xllamacpp, told))
    except (RuntimeError, ValueError, OSError) as error:
        say({"failed": "load", "detail": str(error)})
        time.sleep(LOG_TIMEOUT)  # a thread of llama.cpp's still writes the reason; the page ends this process then
        os._exit(1)
    for name in KEPT_SIGNALS:
        _ignore(name)  # llama.cpp has installed handlers of its own
    if told.get("timed"):
        say({"seconds": seconds_per_token(server, told["timed"] / 2)})
        os._exit(0)  # closing the server takes time, and frees nothing that the end of the process does not
    say({"address": server.listening_address})
    while os.name == "nt" or os.getppid() == told["parent"]:
        time.sleep(POLL_SECONDS)
    os._exit(0)


def parameters(xllamacpp: Any, told: dict[str, Any]) -> Any:
    """llama.cpp's parameters for what the page asks."""
    params = xllamacpp.CommonParams()
    params.model.path = named(told["model"])
    if told["mmproj"]:
        params.mmproj.path = named(told["mmproj"])
        params.image_min_tokens, params.image_max_tokens = MIN_IMAGE_TOKENS, MAX_IMAGE_TOKENS
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], told["port"], [told["key"]]
    params.n_threads_http = 2 * told["slots"] + SPARE_HTTP_THREADS
    params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = False
    params.ui, params.use_jinja, params.cors_origins, params.verbosity = False, False, "", ERRORS_ONLY
    params.n_ctx, params.n_parallel, params.kv_unified = told["context"], told["slots"], True
    params.n_batch = params.n_ubatch = told["batch"]
    params.cache_ram_mib, params.cache_idle_slots, params.slot_prompt_similarity = 0, False, 0.0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = told["threads"]
    kv_type = {"f16": xllamacpp.ggml_type.GGML_TYPE_F16, "q8_0": xllamacpp.ggml_type.GGML_TYPE_Q8_0}[told["kv_type"]]
    params.cache_type_k = params.cache_type_v = kv_type
    params.fit_params, params.n_gpu_layers, params.warmup = False, told["gpu_layers"], told["warm_up"]
    if not told["gpu_layers"]:  # nothing on a graphics card: neither keys and values nor the products of a long prompt
        params.split_mode, params.main_gpu = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE, -1
        params.no_kv_offload = params.no_op_offload = True
        params.mmproj_use_gpu = False
    elif told["tensor_split"]:
        _divide(xllamacpp, params, told["tensor_split"])
        with contextlib.suppress(ValueError):  # a device that it does not know: the projector is on the first one then
            params.mmproj_device = told["mmproj_device"]
    return params


def _divide(xllamacpp: Any, params: Any, layers: list[int]) -> None:
    """Have each graphics card hold as many layers as planned, instead of what is proportional to its free memory.

    Of a card that holds none, llama.cpp then takes no memory either, if only one is left.
    """
    used = [index for index, count in enumerate(layers) if count]
    if len(used) == 1:
        params.split_mode, params.main_gpu = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE, used[0]
    else:
        params.tensor_split = [float(count) for count in layers] + [0.0] * (len(params.tensor_split) - len(layers))


def named(path: str) -> str:
    """`path`, or another name of the same file where that is not Unicode, as llama.cpp's names are."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"
    return path


def devices(xllamacpp: Any) -> list[dict[str, Any]]:
    """llama.cpp's devices as JSON can hold them."""
    return [
        {
            "name": str(each["name"]),
            "description": str(each["description"]),
            "free": int(each["memory_free"]),
            "total": int(each["memory_total"]),
            "type": each["type"].name.removeprefix("GGML_BACKEND_DEVICE_TYPE_"),
        }
        for each in xllamacpp.get_device_info()
    ]


def seconds_per_token(server: Any, seconds: float) -> float:
    """Seconds per token at the start of a conversation: of several short replies, the fastest counts.

    None is begun once `seconds` are over.
    """
    until = time.monotonic() + seconds
    times = [_timed_reply(server)]
    while len(times) < TIMED_REPLIES and time.monotonic() < until:
        times.append(_timed_reply(server))
    return min(times)


def _timed_reply(server: Any) -> float:
    body = {"prompt": TIMED_PROMPT, "max_tokens": TIMED_TOKENS, "temperature": 0, "ignore_eos": True}
    reply = server.handle_completions({**body, "cache_prompt": False})
    timings = (json.loads(reply) if isinstance(reply, str) else reply)["timings"]
    return float(timings["predicted_ms"]) / 1_000 / float(timings["predicted_n"])


def watch(child: int, page: int) -> None:
    """End the process `child` once its standard input, which this process shares, is closed, or `page` has ended.

    In a process of its own, for systems on which the kernel cannot do that.
    """
    for name in KEPT_SIGNALS:
        _ignore(name)
    closed = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        closed.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    while not closed.wait(POLL_SECONDS):
        if os.name != "nt" and (os.getppid() != child or not _runs(page)):
            break
    if os.name == "nt" or os.getppid() == child:  # else it has ended, and its number may be another's
        os.kill(child, getattr(signal, "SIGKILL", signal.SIGTERM))
    os._exit(0)


def _end_when_stdin_closes() -> bool:
    """Have Linux end this process when the other end of its standard input is closed, as by the page's death.

    SIGIO, which ends a process that does not handle it, needs no thread: loading holds the GIL for as long as it takes. False
    where the system has no such thing.
    """
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # it may have been started with another
        with contextlib.suppress(OSError):  # also a process that is stopped ends by this signal
            fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return False
    if select.select([0], [], [], 0)[0]:  # it was closed before
        os._exit(0)
    return True


def _offer_for_out_of_memory() -> None:
    """Have Linux end this process, and not the page, when the memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")
    except OSError:
        pass


def _write_no_core() -> None:
    """Have no crash write gigabytes of weights, and conversations among them, to the disk."""
    if os.name != "nt":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _start_watch(page: int) -> None:
    code = [sys.executable, "-I", "-S", os.path.abspath(__file__), "--watch", str(os.getpid()), str(page)]
    nothing = subprocess.DEVNULL
    subprocess.Popen(code, stdout=nothing, stderr=nothing, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _ignore(name: str) -> None:
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


if __name__ == "__main__":
    main()
