"""Measures the GGUF engine beside the local engine and beside llama.cpp's own server, all with the same random weights.

Costs are seconds of the CPU, those of llama.cpp's process and of ours together, each process with one thread that computes.
"""

import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from magistral_ui.chat.events import Answer, Prefilling, Reasoning
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Loading, ModelRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.completion import CompletionStream, completion_body
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.loader import load
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.folder import inspect_folder
from magistral_ui.models.gguf_buffers import CPU_BATCH
from tests.benchmarks.gguf_model import make_gguf
from tests.benchmarks.requests import UniqueRequests
from tests.benchmarks.table import Row, at_least, at_most, told
from tests.engines.gguf.demo import loaded, request
from tests.loopback import free_port
from tests.servers.processes import ServerProcess

PROMPT, REPLY, STREAMS, LONG_PROMPT = 16, 64, 8, 2_500
CONTEXT = 32_768
"""Tokens for which the plan has a slot for each of the streams."""
LLAMA_CPP = Path(__file__).parents[1] / "servers" / "llama_cpp.py"
SAMPLERS = {"samplers": ["penalties", "top_k"], "top_k": 1, "temperature": 0}
"""What our engine sends for a greedy reply."""
QUIET_SECONDS = 1.5
"""After which a process that has used no CPU has nothing to do."""


def process_seconds(pid: int) -> float:
    """CPU seconds of another process so far, from Linux' clock of it: exact to the nanosecond."""
    return time.clock_gettime(~pid << 3 | 2)


class Local:
    """The engine on torch, in this process."""

    def __init__(self, folder: Path, precision: str) -> None:
        device = Device("cpu", "CPU", 2**34, 2**34)
        source = ModelSource(inspect_folder(folder).card, folder)
        self._running = RunningModel(load(source, device, precision, lambda _: None), device)
        self._requests = UniqueRequests()

    def cost(self, tokens: int, new: int, streams: int = 1) -> float:
        """CPU seconds to answer `streams` prompts at once."""
        requests = [self._requests.make(tokens, new, n) for n in range(streams)]
        start = time.process_time()
        generations = [self._running.submit(request) for request in requests]
        while not all(generation.ended for generation in generations):
            self._running.scheduler.step()
        took = time.process_time() - start
        check(generations, new)
        return took


class GGUF:
    """The engine on llama.cpp, whose process is a child of this one."""

    def __init__(self, folder: Path) -> None:
        self._requests = UniqueRequests()
        self.engine = GGUFEngine(
            ModelRequest(str(folder / "model.gguf"), device="cpu", context_length=CONTEXT, threads=1)
        )
        self.engine.start()
        while isinstance(self.engine.status(), Loading):
            time.sleep(0.1)
        assert isinstance(self.engine.status(), Ready), self.engine.status()
        assert self.engine._running is not None
        self.pid = self.engine._running.server.pid

    def request(self, tokens: int, new: int, visitor: int = 0) -> GenerationRequest:
        return self._requests.make(tokens, new, visitor)

    def costs(self, tokens: int, new: int, streams: int = 1) -> tuple[float, float]:
        """CPU seconds of this process and of the child to answer `streams` prompts at once."""
        requests = [self.request(tokens, new, n) for n in range(streams)]
        own, child = time.process_time(), process_seconds(self.pid)
        generations = [self.engine.submit(request) for request in requests]
        for generation in generations:
            generation.wait()
        took = time.process_time() - own, process_seconds(self.pid) - child
        check(generations, new)
        return took

    def cost(self, tokens: int, new: int, streams: int = 1) -> float:
        return sum(self.costs(tokens, new, streams))

    def close(self) -> None:
        self.engine.close()


class ChatServer:
    """llama.cpp's own server with as many slots and as large a pool, and else its own settings, asked at its chat endpoint."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        settings = json.dumps({"n_ctx": CONTEXT, "kv_unified": True})
        command = [sys.executable, str(LLAMA_CPP), str(folder), str(port), str(STREAMS), settings]
        self._server = ServerProcess(command, port, folder / "server.log")
        self._server.wait_until_up("/health")
        self._requests = UniqueRequests()
        self.prompt_tokens = 0

    def cost(self, tokens: int, new: int) -> float:
        """CPU seconds of the server alone; what it costs to read its stream is not counted."""
        body: dict[str, Any] = {"messages": [{"role": "user", "content": self._requests.text(tokens)}]}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": new, **SAMPLERS}
        start = process_seconds(self._server.pid)
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        said = connection.getresponse().read()
        connection.close()
        took = process_seconds(self._server.pid) - start
        chunks = [json.loads(line[6:]) for line in said.split(b"\n") if line.startswith(b"data: {")]
        usage = chunks[-1]["usage"]
        assert usage["completion_tokens"] == new, usage
        assert sum(bool(chunk["choices"]) for chunk in chunks) >= new, "fewer chunks than tokens"
        self.prompt_tokens = usage["prompt_tokens"]
        return took

    def close(self) -> None:
        self._server.close()


def check(generations: list[Generation], new: int) -> None:
    """That replies were written to their full length."""
    written = [generation.usage.completion_tokens for generation in generations]
    assert written == [new] * len(written), written


def ratio(above: Callable[[], float], below: Callable[[], float], times: int) -> float:
    """The median of above ÷ below, each pair run one right after the other."""
    return statistics.median(above() / below() for _ in range(times))


def rows(folder: Path, quick: bool) -> Iterator[Row]:
    """All measurements; the quick ones once."""
    times = 1 if quick else 3
    with ExitStack() as opened:
        engines: dict[str, GGUF] = {}
        for quant in ("Q8_0", "Q4_0"):
            files = make_gguf(folder, quant)
            engines[quant] = ours = opened.enter_context(closing(GGUF(files)))
            ours.cost(PROMPT, 4)
            with closing(ChatServer(files)) as theirs:
                theirs.cost(PROMPT, 4)
                yield beside_server(quant, ours, theirs, 2 * times)
        yield from own_rows(engines["Q4_0"], times)
        yield from waiting_rows(engines["Q4_0"])
        for precision in ("nf4", "bfloat16"):
            local = Local(folder, precision)
            local.cost(PROMPT, 4)
            for quant, ours in engines.items():
                yield from beside_local(quant, precision, ours, local, times)
            del local
    yield from demo_rows(times)


def beside_server(quant: str, ours: GGUF, theirs: ChatServer, times: int) -> Row:
    """One stream of ours beside one of the server's chat endpoint, for the same prompt."""
    reached = ratio(lambda: theirs.cost(PROMPT, REPLY), lambda: ours.cost(PROMPT, REPLY), times)
    generation = ours.engine.submit(ours.request(PROMPT, 1))
    generation.wait()
    assert generation.usage.prompt_tokens == theirs.prompt_tokens, (generation.usage, theirs.prompt_tokens)
    return at_least(f"{quant}: tokens/s of one visitor ÷ llama.cpp's chat endpoint", 0.95, reached)


def own_rows(ours: GGUF, times: int) -> Iterator[Row]:
    """What the page's process has to do for a token."""
    for streams in (1, STREAMS):
        own = statistics.median(ours.costs(PROMPT, REPLY, streams)[0] / streams / REPLY for _ in range(times))
        floor = statistics.median(socket_cost(ours) for _ in range(times)) if streams == 1 else 0
        note = f"{floor * 1000:.3f} of them only to be woken and take the bytes from the socket" if floor else ""
        yield at_most(f"Q4_0: CPU of the page's own process per token, {streams} at once, ms", 0.1, own * 1000, note)


def demo_rows(times: int) -> Iterator[Row]:
    """The same with the demo model, whose weights leave room for anything else in the processor's caches."""
    with closing(loaded(slots=STREAMS)) as engine:
        for streams in (1, STREAMS):
            costs = [demo_cost(engine, streams) for _ in range(times + 1)][1:]
            what = f"demo model: CPU of the page's own process per token, {streams} at once, ms"
            yield at_most(what, 0.1, statistics.median(costs) * 1000)


def demo_cost(engine: GGUFEngine, streams: int) -> float:
    """CPU seconds of this process for each token of long replies."""
    requests = [request(engine, "Count from 1 to 200.", visitor=f"{n}", max_tokens=600) for n in range(streams)]
    start = time.process_time()
    generations = [engine.submit(each) for each in requests]
    for generation in generations:
        generation.wait()
    took = time.process_time() - start
    return took / sum(generation.usage.completion_tokens for generation in generations)


def socket_cost(ours: GGUF) -> float:
    """CPU seconds for each token of a thread that does nothing but take the bytes of such a stream from its socket."""
    assert ours.engine._running is not None
    server, params = ours.engine._running.server, SamplingParams(temperature=0)
    prompt = [1, 3, *range(5_000, 5_000 + PROMPT), 4]
    body = completion_body(prompt, params, slot=0, reuse=False, count=REPLY, length=len(prompt), position=0)
    stream = CompletionStream(server, body)
    stream._socket.setblocking(True)
    while stream.sending:
        stream.send()
    start = time.thread_time()
    while stream._socket.recv(2**16):
        pass
    took = time.thread_time() - start
    stream.close()
    return took / REPLY


def waiting_rows(ours: GGUF) -> Iterator[Row]:
    """How long others wait for a long prompt, in batches of it."""
    batches, count = longest_wait(ours)
    note = f"of the {count} batches of {CPU_BATCH} in which {LONG_PROMPT:,} tokens are read"
    yield at_most("Q4_0: batches read between two tokens of another visitor", 2, batches, note)
    yield at_most("Q4_0: CPU after a long prompt is stopped, in batches", 2, read_after_stop(ours))


def beside_local(quant: str, precision: str, ours: GGUF, local: Local, times: int) -> Iterator[Row]:
    """Beside the local engine. Several replies at once, and long prompts, are not what this engine is for: no goal."""
    what = f"{quant} ÷ {precision}: tokens/s of"
    one = ratio(lambda: local.cost(PROMPT, REPLY), lambda: ours.cost(PROMPT, REPLY), times)
    yield at_least(f"{what} one visitor", 1, one)
    many = ratio(lambda: local.cost(PROMPT, 32, STREAMS), lambda: ours.cost(PROMPT, 32, STREAMS), times)
    yield told(f"{what} {STREAMS} visitors", many)
    prompt = ratio(lambda: local.cost(512, 1), lambda: ours.cost(512, 1), times)
    yield told(f"{what} reading a prompt of 512", prompt)


def longest_wait(ours: GGUF) -> tuple[int, int]:
    """The most batches of a long prompt between two tokens of another visitor's reply; and how many batches it had."""
    writer = ours.engine.submit(ours.request(PROMPT, 1_000, 1))
    while not texts(writer):
        time.sleep(0.01)
    reader = ours.engine.submit(ours.request(LONG_PROMPT, 1, 2))
    reader.wait()
    writer.stop()
    writer.wait()
    read = [reader._started + each.seconds for each in reader.take() if isinstance(each.event, Prefilling)]
    assert len(read) >= LONG_PROMPT // CPU_BATCH
    longest = run = 0
    for _, is_batch in sorted([(at, True) for at in read] + [(at, False) for at in texts(writer)]):
        run = run + 1 if is_batch else 0
        longest = max(longest, run)
    return longest, len(read)


def texts(generation: Generation) -> list[float]:
    """When each piece of a reply came, by the clock."""
    return [
        generation._started + each.seconds for each in generation.take() if isinstance(each.event, Reasoning | Answer)
    ]


def read_after_stop(ours: GGUF) -> float:
    """The CPU that the child uses after a long prompt is stopped, in batches of that prompt."""
    whole = ours.costs(LONG_PROMPT, 1)[1] / (LONG_PROMPT / CPU_BATCH)
    reader = ours.engine.submit(ours.request(LONG_PROMPT, 1))
    while not any(isinstance(each.event, Prefilling) for each in reader.take()):
        time.sleep(0.005)
    stopped = process_seconds(ours.pid)
    reader.stop()
    reader.wait()
    used, before = process_seconds(ours.pid), 0.0
    while used - before > 0.005:
        before = used
        time.sleep(QUIET_SECONDS)
        used = process_seconds(ours.pid)
    return (used - stopped) / whole


def versions() -> str:
    """Of what was measured."""
    names = ", ".join(f"{name} {version(name)}" for name in ("xllamacpp", "torch", "transformers"))
    return f"Measured on {date.today():%-d %B %Y} with {names}."
