"""Whole decode steps are recorded where that holds and pays: what differs is caught, what has no memory is let alone."""

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from magistral_ui.engines.local import cuda_graphs
from magistral_ui.engines.local.cuda_graphs import StepGraphs
from magistral_ui.engines.local.cuda_recorder import Compute, CudaRecorder, Recording, recorded_buckets
from magistral_ui.engines.local.decode_step import StepInputs, step_inputs
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.local.kv_cache import PagePool
from magistral_ui.engines.local.static_inputs import StaticInputs
from magistral_ui.engines.weights.load_errors import is_out_of_memory
from magistral_ui.models.graph_memory import BUCKETS
from magistral_ui.models.memory import PAGE_TOKENS
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2
from tests.engines.conftest import load_folder
from tests.engines.local.fake_devices import CPU, Claims, claim
from tests.engines.local.recorded_steps import WIDTH, SmallStep, Tape, sequences

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


def graphs_of(step: SmallStep, record: Any, buckets: tuple[int, ...] = BUCKETS) -> StepGraphs:
    return StepGraphs(step, record, step.pool, WIDTH, buckets)


def plain(step: SmallStep, inputs: StepInputs) -> torch.Tensor:
    """The step as calls, on inputs whose tables are as wide as those of a recording."""
    wide = StaticInputs(len(inputs.tokens), WIDTH, CPU)
    wide.write(inputs, len(inputs.tokens))
    state = None
    for index, device in enumerate(step.devices):
        here = StaticInputs(len(inputs.tokens), WIDTH, device)
        here.copy(wide, len(inputs.tokens))
        moved = None if state is None else state.to(device)
        state = step.segment(index, moved, here.first(len(inputs.tokens)))
    assert state is not None
    return state.clone()


def written(step: SmallStep, slots: torch.Tensor) -> list[torch.Tensor]:
    layers = (step.pool.layer(index) for index in range(len(step.places)))
    return [held.flatten(0, 1)[slots].clone() for layer in layers for held in layer]


def check_all_batches(step: SmallStep, graphs: StepGraphs) -> None:
    """At 1 to 17 rows, in an order that leaves larger steps' rows behind, a replay says and writes what the plain step does."""
    for rows in (17, *range(16, 0, -1), 3, 16):
        inputs = sequences(step, rows, seed=rows)
        expected = plain(step, inputs)
        kept = written(step, inputs.slots)
        for layer in range(len(step.places)):
            for held in step.pool.layer(layer):
                held.flatten(0, 1)[inputs.slots] = 0
        logits = graphs.run(inputs)
        if rows == 17:
            assert logits is None
        else:
            assert logits is not None
            torch.testing.assert_close(logits, expected)
            for mine, theirs in zip(written(step, inputs.slots), kept, strict=True):
                torch.testing.assert_close(mine, theirs)
        step.pool.release(range(1, 7))


@torch.inference_mode()
def test_every_batch_is_padded_to_the_next_bucket() -> None:
    step, tape = SmallStep([CPU, CPU, CPU]), Tape()
    graphs = graphs_of(step, tape)
    assert graphs.run(sequences(step, 2)) is None
    step.pool.release(range(1, 7))
    graphs.record()
    assert graphs.buckets == BUCKETS
    assert tape.asked == [(CPU, rows) for rows in (16, 8, 4, 2, 1)]
    assert step.pool.used == 0
    check_all_batches(step, graphs)
    assert len(tape.asked) == 5  # nothing is recorded later
    assert [graphs.bucket(rows) for rows in (1, 2, 3, 5, 9, 16, 17)] == [1, 2, 4, 8, 16, 16, None]


def test_attention_is_prepared_for_padding_rows_and_for_the_check() -> None:
    told: list[list[tuple[int, list[int]]]] = []

    class Noted(Tape):
        def __call__(self, compute: Compute, device: torch.device) -> Recording:
            told.append(step.prepared)
            return super().__call__(compute, device)

    step = SmallStep([CPU])
    graphs_of(step, Noted(), (2,)).record()
    assert told == [[(1, [0]), (1, [0])]]  # what is recorded sees the scratch page
    assert step.prepared == [(41, [1]), (41, [2])]


@pytest.mark.parametrize("places", [[FIRST, FIRST, SECOND], [FIRST, SECOND, SECOND, FIRST]])
@torch.inference_mode()
def test_each_card_replays_its_own_segment(places: list[torch.device]) -> None:
    with Claims():
        step, tape = SmallStep(places), Tape()
        graphs = graphs_of(step, tape)
        graphs.record()
        assert tape.asked == [(device, rows) for rows in (16, 8, 4, 2, 1) for device in step.devices]
        check_all_batches(step, graphs)
        addresses = [result.data_ptr() for _, result in tape.made]
        assert len(set(addresses)) == len(step.devices)  # smaller steps leave their results where the largest does
        assert graphs.taken[FIRST] == tape.reserved(FIRST) > 0


@torch.inference_mode()
def test_few_rows_with_short_tables_have_recordings_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "NARROW_TABLES", (2, 1))
    widths: list[int] = []

    class Noting(SmallStep):
        def segment(self, index: int, state: torch.Tensor | None, inputs: StepInputs) -> torch.Tensor:
            widths.append(inputs.tables.shape[1])
            return super().segment(index, state, inputs)

    with Claims():
        step, tape = Noting([FIRST, SECOND]), Tape()
        graphs = graphs_of(step, tape)
        graphs.record()
        sizes = [16, 8, *([4] * 3), *([2] * 3), *([1] * 3)]
        assert tape.asked == [(device, rows) for rows in sizes for device in step.devices]
        assert graphs.buckets == BUCKETS
        check_all_batches(step, graphs)
        for rows, length, width in ((1, 256, 1), (1, 257, 2), (1, 513, WIDTH), (3, 256, 1), (5, 256, WIDTH)):
            table = torch.tensor([step.pool.take(WIDTH)] * rows, dtype=torch.int32)
            at = torch.full((rows,), length - 1)
            slots = table[:, (length - 1) // PAGE_TOKENS].long() * PAGE_TOKENS + at % PAGE_TOKENS
            inputs = StepInputs(at % 7, at, slots, table, (at + 1).int())
            expected = plain(step, inputs)
            widths.clear()
            logits = graphs.run(inputs)
            assert logits is not None
            assert set(widths) == {width}
            torch.testing.assert_close(logits, expected)
            step.pool.release(table[0].tolist())


def test_tables_are_not_narrowed_where_there_is_no_memory_for_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "NARROW_TABLES", (1,))
    with Claims():
        step, tape = SmallStep([FIRST, SECOND]), Full((4,), no_memory)
        graphs = graphs_of(step, tape)
        graphs.record()
    assert graphs.buckets == (1, 2, 8, 16)
    assert [rows for device, rows in tape.asked if device == FIRST] == [16, 8, 4, 2, 2, 1, 1]


def test_padding_is_what_a_step_says_it_is() -> None:
    host, device = StaticInputs(4, 3, CPU), StaticInputs(4, 3, CPU)
    nines = [torch.full((4,), 9) for _ in range(3)]
    host.write(StepInputs(*nines, torch.full((4, 3), 9), torch.full((4,), 9)), 4)
    sevens = [torch.tensor([7]) for _ in range(3)]
    host.write(StepInputs(*sevens, torch.tensor([[7, 8]]), torch.tensor([5])), 2)
    device.copy(host, 2)
    found = device.first(2)
    assert [each.tolist() for each in (found.tokens, found.positions, found.slots)] == [[7, 0]] * 3
    assert found.lengths.tolist() == [5, 1]
    assert found.tables.tolist() == [[7, 8, 0, 0], [0, 0, 0, 0]]  # of an even width
    assert [found.tokens.dtype, found.positions.dtype, found.slots.dtype] == [torch.int64] * 3
    assert (found.tables.dtype, found.lengths.dtype) == (torch.int32, torch.int32)


def test_inputs_are_those_of_each_sequence_s_next_tokens() -> None:
    pool = PagePool([CPU], 1, 8, torch.float32, 8)
    first, second = pool.new_cache(), pool.new_cache()
    first.reserve(PAGE_TOKENS + 2)
    second.reserve(1)
    first.length = PAGE_TOKENS - 1
    (one, other), (third,) = first.pages, second.pages
    inputs = step_inputs([(first, [7, 8]), (second, [9])], 3)
    assert inputs.tokens.tolist() == [7, 8, 9]
    assert inputs.positions.tolist() == [PAGE_TOKENS - 1, PAGE_TOKENS, 0]
    assert inputs.slots.tolist() == [(one + 1) * PAGE_TOKENS - 1, other * PAGE_TOKENS, third * PAGE_TOKENS]
    assert inputs.tables.tolist() == [[one, other, 0], [one, other, 0], [third, 0, 0]]
    assert inputs.lengths.tolist() == [PAGE_TOKENS, PAGE_TOKENS + 1, 1]
    assert [each.dtype for each in (inputs.tokens, inputs.positions, inputs.slots)] == [torch.int64] * 3
    assert (inputs.tables.dtype, inputs.lengths.dtype) == (torch.int32, torch.int32)
    with pytest.raises(ValueError, match="2 pages"):
        step_inputs([(first, [7]), (second, [9])], 1)


FAULTS: dict[str, Callable[[torch.Tensor], object]] = {
    "scaled": lambda result: result.mul_(0.5),
    "one row": lambda result: result[-1].mul_(1.5),
    "not a number": lambda result: result[0].fill_(torch.nan),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("number", [0, 3])
def test_a_recording_that_differs_turns_graphs_off(fault: str, number: int, caplog: pytest.LogCaptureFixture) -> None:
    step, tape = SmallStep([CPU, CPU]), Tape(FAULTS[fault], number)
    graphs = graphs_of(step, tape)
    with caplog.at_level(logging.WARNING):
        graphs.record()
    assert graphs.buckets == ()
    assert graphs.run(sequences(step, 2)) is None
    assert len(tape.asked) == number + 1
    assert tape.forgotten
    assert not tape.made
    assert caplog.messages == ["decode steps are not recorded as graphs: replayed results differ"]


def deaf(compute: Compute, device: torch.device) -> Recording:
    """Does nothing with a replay, but has the results of its recording."""
    return (lambda: None), compute().clone()


class Overlooking(SmallStep):
    """Once it is recorded, what it overlooks of its inputs stays as it was then."""

    def __init__(self, name: str) -> None:
        super().__init__([CPU, CPU])
        self.name, self.recorded = name, False

    def segment(self, index: int, state: torch.Tensor | None, inputs: StepInputs) -> torch.Tensor:
        if self.recorded:
            old = StaticInputs(len(inputs.tokens), WIDTH, CPU).first(len(inputs.tokens))
            kept = {name: getattr(inputs, name) for name in StepInputs.__slots__}
            inputs = StepInputs(**kept | {self.name: getattr(old, self.name)})
        return super().segment(index, state, inputs)


@pytest.mark.parametrize("name", StepInputs.__slots__)
def test_a_recording_that_overlooks_an_input_is_caught(name: str) -> None:
    step = Overlooking(name)

    class Switching(Tape):
        def __call__(self, compute: Compute, device: torch.device) -> Recording:
            def overlooking() -> torch.Tensor:
                step.recorded = True
                try:
                    return compute()
                finally:
                    step.recorded = False

            return super().__call__(overlooking, device)

    graphs = graphs_of(step, Switching())
    graphs.record()
    assert graphs.buckets == ()


@pytest.mark.parametrize("kind", [0, 1])
def test_a_recording_that_writes_no_keys_or_values_is_caught(kind: int) -> None:
    step = SmallStep([CPU, CPU])

    class Forgetful(Tape):
        def __call__(self, compute: Compute, device: torch.device) -> Recording:
            replay, result = super().__call__(compute, device)

            def spoiled() -> None:
                before = step.pool.layer(1)[kind].clone()
                replay()
                step.pool.layer(1)[kind].copy_(before)

            return spoiled, result

    graphs = graphs_of(step, Forgetful())
    graphs.record()
    assert graphs.buckets == ()


def no_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB")


def broken_capture() -> Exception:
    """As torch tells it: what ends a recording fails too, and hides the error that came before."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = no_memory()
    return error


class Full(Tape):
    """There is no memory for some row counts, once their first segment is recorded."""

    def __init__(self, rows: tuple[int, ...], error: Callable[[], Exception]) -> None:
        super().__init__()
        self.rows, self.error = rows, error
        self.begun: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, compute: Compute, device: torch.device) -> Recording:
        replay, result = super().__call__(compute, device)
        if len(result) in self.rows:
            self.made.pop()
            if device == SECOND:
                raise self.error()
            self.begun.append(weakref.ref(result))
        return replay, result


@pytest.mark.parametrize("error", [no_memory, broken_capture])
@pytest.mark.parametrize("rows", [(4,), (16, 8)])
@torch.inference_mode()
def test_no_memory_for_one_bucket_leaves_the_others(
    error: Callable[[], Exception], rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    with Claims():
        step, tape = SmallStep([FIRST, SECOND]), Full(rows, error)
        monkeypatch.setattr(
            cuda_graphs, "empty_device_cache", lambda: alive.append(sum(ref() is not None for ref in tape.begun))
        )
        graphs = graphs_of(step, tape)
        graphs.record()
        assert graphs.buckets == tuple(each for each in BUCKETS if each not in rows)
        assert tape.forgotten == (2 if rows[0] == 16 else 0)  # not while an earlier recording needs the same pool
        assert len(tape.begun) == len(rows)
        assert not any(alive)  # nothing of it is left whenever the cache is emptied
        for count in (1, 3, 5):
            inputs = sequences(step, count)
            logits = graphs.run(inputs)
            if 8 in rows and count == 5:
                assert logits is None
            else:
                assert logits is not None
                torch.testing.assert_close(logits, plain(step, inputs))
            step.pool.release(range(1, 7))


def test_an_error_of_another_kind_turns_graphs_off(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Tape):
        def __call__(self, compute: Compute, device: torch.device) -> Recording:
            if self.asked:
                raise RuntimeError("no graphs here")
            return super().__call__(compute, device)

    step = SmallStep([CPU])
    graphs = graphs_of(step, Failing())
    graphs.record()
    assert graphs.buckets == ()
    assert "decode steps are not recorded as graphs: no graphs here" in caplog.messages


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


def layer(kind: str, *sizes: tuple[int, int]) -> Any:
    """As much of a decoder layer as is looked at, with linear layers of these sizes."""

    def weight(shape: tuple[int, int]) -> Any:
        if kind == "int8":
            return SimpleNamespace(dtype=torch.int8)
        if kind == "bfloat16":
            return SimpleNamespace(dtype=torch.bfloat16)
        return SimpleNamespace(dtype=torch.uint8, quant_state=SimpleNamespace(shape=shape))

    linears = [SimpleNamespace(weight=weight(size)) for size in sizes]
    block, mlp = (SimpleNamespace(children=lambda part=part: part) for part in (linears[:4], [*linears[4:], object()]))
    return SimpleNamespace(self_attn=block, mlp=mlp)


@pytest.mark.parametrize(
    ("capability", "buckets"),
    [((7, 5), ()), ((8, 0), (1, 2, 4)), ((8, 9), (1, 2, 4, 8)), ((10, 0), (1, 2, 4)), ((12, 0), (1, 2, 4, 8))],
)
def test_quantized_steps_are_recorded_as_far_as_they_are_fused(
    capability: tuple[int, int], buckets: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    sizes = MAGISTRAL_SMALL_1_2.linears
    assert recorded_buckets(layer("nf4", *sizes), FIRST) == buckets
    assert recorded_buckets(layer("int8", *sizes), FIRST) == ()
    assert recorded_buckets(layer("bfloat16", *sizes), FIRST) == (BUCKETS if buckets else ())


class Cuda:
    """Streams of cards that are not here: `current` is where work goes, and graphs tell how they were recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.current, self.fails = self.Stream("default"), fails
        self.graphs: list[tuple[object, object, str]] = []
        """Stream, pool and error mode of each recording."""
        self.computed: list[object] = []
        """The stream of each computation, and whether it was recorded."""
        self.ended: list[object] = []
        self.recording = False
        self._pools = iter(range(1, 100))
        for name in ("Stream", "stream", "graph", "device"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(self._pools))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda place=None: self.current)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *which: self.ended.append(which), raising=False)

    class Stream:
        def __init__(self, place: object = None) -> None:
            self.place = place

        def wait_stream(self, other: object) -> None:
            pass

    def compute(self) -> torch.Tensor:
        self.computed.append((self.current.place, self.recording))
        return torch.zeros(1)

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
    def graph(self, graph: object, pool: object, stream: "Cuda.Stream", capture_error_mode: str) -> Iterator[None]:
        self.graphs.append((stream.place, pool, capture_error_mode))
        self.current = stream  # torch does not go back where ending the recording fails
        self.recording = True
        yield
        self.recording = False
        if self.fails:
            raise broken_capture()


def test_a_card_s_recordings_share_a_stream_and_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, record = Cuda(monkeypatch), CudaRecorder()
    for device in (FIRST, SECOND, FIRST, SECOND):
        record(cuda.compute, device)
    assert cuda.graphs == [(place, pool, "thread_local") for place, pool in ((FIRST, 1), (SECOND, 2)) * 2]
    warm, recorded = (FIRST, False), (FIRST, True)
    assert cuda.computed[:3] == [warm, warm, recorded]
    assert not cuda.ended


def test_a_broken_recording_leaves_stream_and_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, record = Cuda(monkeypatch, fails=True), CudaRecorder()
    before = cuda.current
    with pytest.raises(RuntimeError, match="capture"):
        record(cuda.compute, SECOND)
    assert cuda.current is before
    assert cuda.ended == [(1, 1)]  # or torch would refuse the next recording, which has the same pool
    cuda.fails = False
    record(cuda.compute, SECOND)
    assert [pool for _, pool, _ in cuda.graphs] == [1, 1]
    record.forget()
    record(cuda.compute, SECOND)
    assert cuda.graphs[-1][1] == 2


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
        Decoder(model)
    assert torch.backends.cuda.cudnn_sdp_enabled() == (device == "cpu")
