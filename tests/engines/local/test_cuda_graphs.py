"""Decode steps are recorded where that holds and pays: what differs is caught, what has no memory is let alone."""

import ast
import importlib.util
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from magistral_ui.engines.local import cuda_graphs as stages_module
from magistral_ui.engines.local.cuda_graphs import (
    ALWAYS_FUSED,
    FUSED_ROWS,
    MAX_RECORDED_ROWS,
    record_on_cuda,
    recorded_rows,
)
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.weights.load_errors import is_out_of_memory
from magistral_ui.engines.weights.loader import Loaded
from tests.engines.conftest import load_folder
from tests.engines.local.fake_devices import Claims, claim
from tests.engines.local.test_decoder import replayed, step

Results = tuple[torch.Tensor, ...]
Compute = Callable[[], Results]
Recorded = tuple[Callable[[], None], Results]
PLACE = torch.device("cuda", 0)
BATCHES = [[1, *range(200, 210)], [1, *range(300, 390)], [1, 5, 6, 7]]


def recorder(spoil: Callable[[Results], object], part: int = 1) -> Callable[[Compute, torch.device], Recorded]:
    """A recording whose `part`-th piece is spoiled with every replay."""
    made = []

    def record(compute: Compute, place: torch.device) -> Recorded:
        replay, results = replayed(compute, place)
        made.append(results)
        if len(made) != part + 1:
            return replay, results
        return (lambda: (replay(), spoil(results))), results  # type: ignore[return-value]

    return record


FAULTS: dict[str, Callable[[Results], object]] = {
    "queries": lambda results: results[1].mul_(0.5),
    "keys": lambda results: results[2].mul_(0.5),
    "values": lambda results: results[3].mul_(0.5),
    "one head's keys": lambda results: results[2][:, 0].mul_(0.5),
    "not a number": lambda results: results[1].fill_(torch.nan),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", [0, 2])
def test_a_recording_that_differs_is_caught(vision_loaded: Loaded, fault: str, part: int) -> None:
    plain, recording = Decoder(vision_loaded.model), Decoder(vision_loaded.model)
    recording._stages.record = recorder(FAULTS[fault], part)
    assert torch.equal(step(recording, BATCHES), step(plain, BATCHES))
    assert recording._stages.record is None


def test_a_recording_that_does_not_heed_its_input_is_caught(vision_loaded: Loaded) -> None:
    def deaf(compute: Compute, place: torch.device) -> Recorded:
        return (lambda: None), tuple(each.clone() for each in compute())

    plain, recording = Decoder(vision_loaded.model), Decoder(vision_loaded.model)
    recording._stages.record = deaf
    assert torch.equal(step(recording, BATCHES), step(plain, BATCHES))
    assert recording._stages.record is None


def no_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB")


def broken_capture() -> Exception:
    """As torch tells it: what ends a recording fails too, and hides the error that came before."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = no_memory()
    return error


@pytest.mark.parametrize("error", [no_memory, broken_capture])
def test_no_memory_for_one_number_of_rows_leaves_the_others(
    vision_loaded: Loaded, error: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[weakref.ref[torch.Tensor]] = []
    emptied, tried = [], []

    def record(compute: Compute, place: torch.device) -> Recorded:
        replay, results = replayed(compute, place)
        if len(results[0]) == 5:
            tried.append(len(begun))
            if len(begun) == 2:
                raise error()
            begun.append(weakref.ref(results[0]))
        return replay, results

    monkeypatch.setattr(stages_module, "empty_device_cache", lambda: emptied.append([ref() for ref in begun]))
    plain, recording = Decoder(vision_loaded.model), Decoder(vision_loaded.model)
    recording._stages.record = record
    five = [*BATCHES, *BATCHES[:2]]
    for batches in (five, BATCHES, five):
        assert torch.equal(step(recording, batches), step(plain, batches))
    assert set(recording._stages._recorded) == {4}  # of three rows: a processor has no fewer
    assert emptied == [[None, None]]  # once, when nothing was left of it
    assert len(tried) == 3


def test_out_of_memory_is_told_by_whatever_it_led_to() -> None:
    assert is_out_of_memory(broken_capture())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.03 GB, max allowed: 9.07 GB)"))
    assert is_out_of_memory(
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
    )
    assert not is_out_of_memory(RuntimeError("no graphs here"))
    looped = RuntimeError("x")
    looped.__context__ = ValueError("y")
    looped.__context__.__context__ = looped
    assert not is_out_of_memory(looped)


def layer(kind: str, *shapes: tuple[int, int]) -> Any:
    """As much of a decoder layer as is looked at, with linear layers of these sizes."""

    def weight(shape: tuple[int, int]) -> Any:
        if kind == "int8":
            return SimpleNamespace(dtype=torch.int8)
        if kind == "bfloat16":
            return SimpleNamespace(dtype=torch.bfloat16)
        return SimpleNamespace(dtype=torch.uint8, quant_state=SimpleNamespace(shape=shape))

    linears = [SimpleNamespace(weight=weight(shape)) for shape in shapes]
    block, mlp = (SimpleNamespace(children=lambda part=part: part) for part in (linears[:4], [*linears[4:], object()]))
    return SimpleNamespace(self_attn=block, mlp=mlp)


def shapes(hidden: int, intermediate: int, heads: int = 32, kv_heads: int = 8) -> tuple[tuple[int, int], ...]:
    wide, narrow = 128 * heads, 128 * kv_heads
    attention = ((wide, hidden), (narrow, hidden), (narrow, hidden), (hidden, wide))
    return (*attention, (intermediate, hidden), (intermediate, hidden), (hidden, intermediate))


MODELS = {
    "24B": shapes(5_120, 32_768),
    "14B": shapes(5_120, 16_384),
    "8B": shapes(4_096, 14_336),
    "3B": shapes(3_072, 9_216),
}


@pytest.mark.parametrize(
    ("capability", "rows"),
    [((7, 5), 0), ((8, 0), 5), ((8, 6), 8), ((8, 9), 8), ((9, 0), 5), ((10, 0), 4), ((12, 0), 8)],
)
def test_quantized_steps_are_recorded_as_far_as_they_are_fused(
    capability: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert recorded_rows(layer("nf4", *MODELS["24B"]), PLACE) == rows
    assert recorded_rows(layer("nf4", *MODELS["3B"]), PLACE) == min(rows, ALWAYS_FUSED)
    assert recorded_rows(layer("int8", *MODELS["24B"]), PLACE) == 0
    assert recorded_rows(layer("bfloat16", *MODELS["24B"]), PLACE) == MAX_RECORDED_ROWS


@pytest.fixture(scope="module")
def fused() -> Callable[[tuple[int, int], int, int, int, int], bool]:
    """bitsandbytes' own rule, read from its source: its module for CUDA cannot be imported without a card."""
    found = importlib.util.find_spec("bitsandbytes")
    assert found is not None
    assert found.origin is not None
    source = (Path(found.origin).parent / "backends" / "cuda" / "ops.py").read_text(encoding="utf-8")
    wanted = ("_gemm_4bit_use_custom_cuda", "_GEMM_4BIT_CUSTOM_FLOOR_M")
    body = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in wanted:
            node.decorator_list = []
            body.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in wanted:
            body.append(node)
    props: list[tuple[int, int, int]] = []
    rule: dict[str, Any] = {"torch": torch, "_gpu_dispatch_props": lambda _: props[-1]}
    exec(compile(ast.Module(body, []), "ops.py", "exec"), rule)

    def is_fused(capability: tuple[int, int], processors: int, rows: int, out: int, into: int) -> bool:
        props.append((processors, *capability))
        return bool(rule["_gemm_4bit_use_custom_cuda"](0, torch.bfloat16, rows, out, into))

    return is_fused


@pytest.mark.parametrize("capability", [*FUSED_ROWS, (8, 7), (10, 0), (10, 3), (11, 0), (12, 5)])
@pytest.mark.parametrize("model", MODELS)
def test_what_is_recorded_is_fused_by_the_library_s_own_rule(
    fused: Callable[..., bool], capability: tuple[int, int], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    most = recorded_rows(layer("nf4", *MODELS[model]), PLACE)
    assert most > 0
    smallest = 98 if capability == (8, 0) else 114 if capability == (9, 0) else 16  # whole cards of the data centre
    for processors in range(smallest, 200, 6):
        for out, into in set(MODELS[model]):
            assert all(fused(capability, processors, rows, out, into) for rows in range(1, most + 1))


class Cuda:
    """Streams of cards that are not here: `current` is where work goes, and graphs tell on which stream they were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
        self.current, self.graphs, self.fails = self.Stream("default"), [], fails  # type: ignore[var-annotated]
        for name in ("Stream", "stream", "graph", "device"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda place=None: self.current)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))

    class Stream:
        def __init__(self, place: object = None) -> None:
            self.place = place

        def wait_stream(self, other: object) -> None:
            pass

    @contextmanager
    def device(self, place: torch.device) -> Iterator[None]:
        yield

    @contextmanager
    def stream(self, stream: "Cuda.Stream") -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: object, stream: "Cuda.Stream") -> Iterator[None]:
        self.graphs.append(stream.place)
        self.current = stream  # torch does not go back where ending the recording fails
        yield
        if self.fails:
            raise broken_capture()


def test_a_recording_is_made_on_a_stream_of_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch, fails=False)
    for index in (0, 1, 0):
        record_on_cuda(lambda: (torch.zeros(1),), torch.device("cuda", index))
    assert cuda.graphs == [torch.device("cuda", index) for index in (0, 1, 0)]


def test_a_broken_recording_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch, fails=True)
    before = cuda.current
    with pytest.raises(RuntimeError, match="capture"):
        record_on_cuda(lambda: (torch.zeros(1),), torch.device("cuda", 1))
    assert cuda.current is before


@pytest.fixture
def cudnn() -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_cudnn_s_attention_is_off_before_the_first_forward(text_folder: Path, cudnn: None, device: str) -> None:
    model = load_folder(text_folder).model
    with Claims():
        for tensor in (*model.parameters(), *model.buffers()):
            claim(tensor, torch.device(device, 0))
        Decoder(model, graphs=False)
    assert torch.backends.cuda.cudnn_sdp_enabled() == (device == "cpu")
