"""Attention over pages: each way of computing it gives what a row alone gives, and a kernel that does not is passed over."""

import inspect
import logging
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.attention.varlen import varlen_attn

from magistral_ui.engines.local import paged_kernels
from magistral_ui.engines.local.attention_choice import ChosenAttention, choose_paged_attention, use_kernels
from magistral_ui.engines.local.attention_trial import Trial, TrialFailed
from magistral_ui.engines.local.decode_step import StepInputs
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.paged_attention import GatheredAttention, ReferenceAttention, ragged_inputs
from magistral_ui.engines.local.paged_kernels import FlashInferAttention, VarlenAttention
from magistral_ui.engines.weights.loader import Loaded
from magistral_ui.models.memory import PAGE_TOKENS, pages_of
from tests.engines.local import fake_kernels
from tests.engines.local.fake_devices import Claims
from tests.engines.local.fake_kernels import flash_attention_2, naive

CPU = torch.device("cpu")
HEAD_DIM, WIDTH = 8, 6
POOL = (29, PAGE_TOKENS, 2, 16)
"""The shape of the pools that are tried."""
FLASHINFER = SimpleNamespace(
    BatchDecodeWithPagedKVCacheWrapper=fake_kernels.BatchDecodeWithPagedKVCacheWrapper,
    BatchPrefillWithPagedKVCacheWrapper=fake_kernels.BatchPrefillWithPagedKVCacheWrapper,
)


@pytest.fixture(autouse=True)
def _small_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_kernels, "WORKSPACE_BYTES", 1024)


def varlen(device: torch.device = CPU) -> VarlenAttention:
    return VarlenAttention(device, flash_attention_2)


def flashinfer(
    heads: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, width: int = WIDTH
) -> FlashInferAttention:
    return FlashInferAttention(FLASHINFER, CPU, dtype, heads, shape, width)


class Pages:
    """A pool in which rows' tables overlap, with NaN in the scratch page and in a page that nobody has."""

    def __init__(self, seed: int, lengths: list[int], group: int, shared: int) -> None:
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.shape = (12, PAGE_TOKENS, shared, HEAD_DIM)
        self.keys, self.values = (torch.randn(self.shape) for _ in range(2))
        for pool in (self.keys, self.values):
            pool[0], pool[11] = torch.nan, torch.nan
        self.heads, self.scale, self.lengths = group * shared, 0.7, lengths
        whole = rng.sample(range(1, 11), WIDTH)
        self.tables = [
            (whole if rng.random() < 0.5 else rng.sample(range(1, 11), WIDTH))[: pages_of(n)] for n in lengths
        ]

    def inputs(self) -> StepInputs:
        none = torch.zeros(len(self.lengths), dtype=torch.int64)
        padded = torch.tensor([each + [0] * (WIDTH - len(each)) for each in self.tables], dtype=torch.int32)
        return StepInputs(none, none, none, padded, torch.tensor(self.lengths, dtype=torch.int32))

    def alone(self, query: torch.Tensor, table: list[int], length: int) -> torch.Tensor:
        return naive(query, self.keys, self.values, table, length, self.scale).flatten()


LENGTHS = st.one_of(st.sampled_from([1, 255, 256, 257, 512, 1_400]), st.integers(1, WIDTH * PAGE_TOKENS))
SHAPES = {
    "lengths": st.lists(LENGTHS, min_size=1, max_size=10),
    "group": st.integers(1, 8),
    "shared": st.integers(1, 2),
}


@pytest.mark.parametrize("way", ["reference", "gathered", "varlen", "flashinfer"])
@settings(max_examples=12)
@given(seed=st.integers(0, 2**16), **SHAPES)
@example(seed=0, lengths=[300, 257], group=1, shared=2)  # no heads share keys: FlashAttention 2 must not split
def test_each_row_attends_as_if_it_were_alone(way: str, seed: int, lengths: list[int], group: int, shared: int) -> None:
    pages = Pages(seed, lengths, group, shared)
    ways: dict[str, Callable[[], Any]] = {
        "reference": ReferenceAttention,
        "gathered": GatheredAttention,
        "varlen": varlen,
        "flashinfer": lambda: flashinfer(pages.heads, pages.shape),
    }
    attention = ways[way]()
    queries = torch.randn(len(lengths), pages.heads, HEAD_DIM)
    attention.prepare(lengths, pages.tables)
    out = attention.attend(queries, pages.keys, pages.values, pages.inputs(), pages.scale)
    alone = [pages.alone(*each) for each in zip(queries, pages.tables, lengths, strict=True)]
    torch.testing.assert_close(out, torch.stack(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["reference", "varlen", "flashinfer"])
@settings(max_examples=8)
@given(seed=st.integers(0, 2**16), cut=st.integers(0, 2**16), **SHAPES)
def test_rows_of_a_sequence_see_what_is_not_after_them(
    way: str, seed: int, cut: int, lengths: list[int], group: int, shared: int
) -> None:
    pages = Pages(seed, lengths, group, shared)
    counts = [1 + cut % min(length, 12 + n) for n, length in enumerate(lengths)]
    queries = torch.randn(sum(counts), pages.heads, HEAD_DIM)
    ways: dict[str, Callable[[], Any]] = {
        "reference": ReferenceAttention,
        "varlen": varlen,
        "flashinfer": lambda: flashinfer(pages.heads, pages.shape),
    }
    reserved = [[*table, 11] for table in pages.tables]
    inputs = ragged_inputs(counts, lengths, reserved, CPU)
    out = ways[way]().attend_ragged(queries, pages.keys, pages.values, inputs, pages.scale)
    asked = [(t, n - c + 1 + k) for t, n, c in zip(pages.tables, lengths, counts, strict=True) for k in range(c)]
    alone = [pages.alone(query, table, length) for query, (table, length) in zip(queries, asked, strict=True)]
    torch.testing.assert_close(out, torch.stack(alone), rtol=1e-5, atol=1e-5)


def test_the_stand_in_takes_what_torchs_own_takes() -> None:
    """The installed torch's: names, order and defaults."""
    real, fake = (inspect.signature(each).parameters.values() for each in (varlen_attn, flash_attention_2))
    assert [(p.name, p.kind, p.default) for p in real] == [(p.name, p.kind, p.default) for p in fake]


def test_the_stand_ins_take_what_flashinfers_own_take() -> None:
    real = pytest.importorskip("flashinfer")
    for name, fake in vars(FLASHINFER).items():
        for method in ("__init__", "plan", "run"):
            taken = inspect.signature(getattr(fake, method)).parameters
            theirs = inspect.signature(getattr(getattr(real, name), method))
            named = {each: None for each, p in taken.items() if p.kind is not inspect.Parameter.VAR_POSITIONAL}
            theirs.bind(**named)


def test_other_flash_attention_gets_no_lengths_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention 3 and 4 refuse `cu_seq_k` beside a block table, and split ragged rows rightly."""
    given_: dict[str, Any] = {}

    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        given_.update(inspect.signature(varlen_attn).bind(*args, **kwargs).arguments)
        return args[0]

    monkeypatch.setattr(paged_kernels, "current_flash_attention_impl", lambda: "FA3")
    pages = Pages(0, [300, 5], 4, 2)
    kernel = VarlenAttention(CPU, attention)
    queries = torch.randn(7, 8, HEAD_DIM)
    inputs = ragged_inputs([5, 2], pages.lengths, pages.tables, CPU)
    kernel.attend_ragged(queries, pages.keys, pages.values, inputs, 1.0)
    assert kernel.name == "torch's FA3"
    assert given_["cu_seq_k"] is None
    assert given_["num_splits"] is None
    assert given_["max_q"] == 5


def test_flashinfer_plans_once_for_all_layers_and_keeps_its_buffers() -> None:
    pages = Pages(1, [1_400, 256, 1], 4, 2)
    kernel = flashinfer(pages.heads, pages.shape)
    queries, asked = torch.randn(3, 8, HEAD_DIM), (pages.keys, pages.values)
    addresses = set()
    for _step in range(2):
        kernel.prepare(pages.lengths, pages.tables)
        for _layer in range(3):
            kernel.attend(queries, *asked, pages.inputs(), 1.0)
        wrapper = kernel._decoders[3]
        addresses.add(tuple(each.data_ptr() for each in wrapper._buffers))
    assert wrapper.plans == 2
    assert len(addresses) == 1
    chunks = [ragged_inputs([3], [n], [pages.tables[0]], CPU) for n in (300, 303)]
    for inputs in chunks:
        for _layer in range(3):
            kernel.attend_ragged(queries, *asked, inputs, 1.0)
    assert kernel._prefill.plans == 2
    assert kernel.workspace_bytes == 1024 + 2 * paged_kernels.PLAN_BYTES


def test_flashinfer_s_next_plan_waits_until_the_last_one_has_left_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Event:
        def synchronize(self) -> None:
            told.append("waited")

        def record(self, stream: object) -> None:
            told.append(f"copied on {stream}")

    card = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"{device}'s stream")
    for name, wrapper in vars(FLASHINFER).items():
        spied = type(name, (wrapper,), {"plan": lambda self, *given, **named: told.append("planned")})
        monkeypatch.setattr(FLASHINFER, name, spied)
    pages = Pages(1, [300], 4, 2)
    with Claims():
        kernel = FlashInferAttention(FLASHINFER, card, torch.float32, 8, pages.shape, WIDTH)
        monkeypatch.setattr(kernel, "_run", lambda *given: told.append("ran"))
        kernel.prepare(pages.lengths, pages.tables)
        inputs = ragged_inputs([2], [300], pages.tables, CPU)
        for _layer in range(2):
            kernel.attend_ragged(torch.zeros(2, 8, HEAD_DIM), pages.keys, pages.values, inputs, 1.0)
    assert told == ["waited", "planned", "copied on cuda:1's stream"] * 2 + ["ran"] * 2


def test_flashinfer_keeps_one_wrapper_for_steps_that_are_never_recorded() -> None:
    kernel = flashinfer(8, (12, PAGE_TOKENS, 2, HEAD_DIM))
    for rows in (2, 17, 16, 20, 17):
        kernel.prepare([1] * rows, [[3]] * rows)
    assert sorted(kernel._decoders) == [2, 16, 17]


def test_flashinfer_uses_no_tensor_cores_that_a_card_lacks() -> None:
    """They would be a breakpoint there, after which nothing runs on the GPU any longer."""
    pages = Pages(3, [300], 4, 2)
    inputs = ragged_inputs([2], [300], pages.tables, CPU)
    for tensor_cores in (True, False):
        kernel = FlashInferAttention(FLASHINFER, CPU, torch.float32, 8, pages.shape, WIDTH, tensor_cores)
        kernel.prepare(pages.lengths, pages.tables)
        assert kernel._decoders[1].use_tensor_cores is tensor_cores
    with pytest.raises(NotImplementedError):
        kernel.attend_ragged(torch.randn(2, 8, HEAD_DIM), pages.keys, pages.values, inputs, 1.0)


def test_a_step_of_more_rows_than_are_recorded_has_row_numbers_too() -> None:
    pages = Pages(2, [n + 1 for n in range(20)], 2, 1)
    queries = torch.randn(20, 2, HEAD_DIM)
    out = varlen().attend(queries, pages.keys, pages.values, pages.inputs(), pages.scale)
    expected = ReferenceAttention().attend(queries, pages.keys, pages.values, pages.inputs(), pages.scale)
    torch.testing.assert_close(out, expected)


def made(attention: Callable[..., torch.Tensor]) -> list[tuple[str, Callable[[], Any]]]:
    """torch's kernel with that `attention` in its place, then FlashInfer's."""
    second = lambda: flashinfer(4, POOL, torch.bfloat16, width=20)  # noqa: E731
    return [("torch's FlashAttention", lambda: VarlenAttention(CPU, attention)), ("FlashInfer", second)]


def chosen(kernels: list[tuple[str, Callable[[], Any]]]) -> tuple[str, str | None]:
    found = choose_paged_attention(POOL, torch.bfloat16, CPU, 4, 20, kernels)
    return found.decode.name, found.ragged and found.ragged.name


def test_the_first_kernel_that_agrees_is_chosen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert chosen(made(flash_attention_2)) == ("torch's FA2", "torch's FA2")
    assert [each.getMessage() for each in caplog.records] == [
        "attention over pages: torch's FA2 for decode steps, torch's FA2 for prompts"
    ]


def out_of_memory(*args: Any, **kwargs: Any) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def not_here(*args: Any, **kwargs: Any) -> torch.Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nException raised from mha_varlen_fwd")


def one_key_short(*args: Any, **kwargs: Any) -> torch.Tensor:
    return flash_attention_2(*args, **kwargs | {"seqused_k": (kwargs["seqused_k"] - 1).clamp(min=1)})


def always_split(*args: Any, **kwargs: Any) -> torch.Tensor:
    return flash_attention_2(*args, **kwargs | {"num_splits": None})


def float32(*args: Any, **kwargs: Any) -> torch.Tensor:
    return flash_attention_2(*args, **kwargs).float()


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        (out_of_memory, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        (not_here, "FlashAttention only supports Ampere GPUs or newer."),
        (one_key_short, "differs by"),
        (float32, "gives torch.float32 of"),
    ],
)
def test_a_kernel_that_fails_is_passed_over(
    caplog: pytest.LogCaptureFixture, attention: Callable[..., torch.Tensor], reason: str
) -> None:
    caplog.set_level(logging.INFO)
    assert chosen(made(attention)) == ("FlashInfer", "FlashInfer")
    first, second, _ = (each.getMessage() for each in caplog.records)
    for line, what in ((first, "decode steps"), (second, "prompts")):
        assert line.startswith(f"attention over pages: torch's FA2 for {what} is passed over: {reason}")


def test_a_kernel_may_serve_for_decode_steps_alone() -> None:
    assert chosen(made(always_split)) == ("torch's FA2", "FlashInfer")
    assert chosen(made(always_split)[:1]) == ("torch's FA2", None)


def test_without_any_kernel_pages_are_gathered(caplog: pytest.LogCaptureFixture) -> None:
    """On this machine torch's kernel raises, and FlashInfer is not installed."""
    caplog.set_level(logging.INFO)
    found = choose_paged_attention(POOL, torch.bfloat16, CPU, 4, 20)
    assert (found.decode.name, found.decode.graphable, found.ragged) == ("gathered pages", False, None)
    assert "is passed over" in caplog.text


def test_without_memory_for_a_trial_no_kernel_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "full", out_of_memory)
    assert chosen(made(flash_attention_2)) == ("gathered pages", None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_passes_the_trial_and_one_key_too_few_does_not(dtype: torch.dtype) -> None:
    trial = Trial((29, PAGE_TOKENS, 2, 64), dtype, CPU, 8, 20)
    trial.decode(GatheredAttention())

    class Short(GatheredAttention):
        def prepare(self, lengths: Any, tables: Any) -> None:
            super().prepare([4_999 if length == 5_000 else length for length in lengths], tables)

    with pytest.raises(TrialFailed, match="differs"):
        trial.decode(Short())


@pytest.mark.parametrize("reads", [True, False])
def test_forwards_through_kernels_say_the_same(vision_loaded: Loaded, reads: bool) -> None:
    """Prompts in pieces, read and written together, branches and drafts; where no kernel reads prompts, SDPA does."""
    plain, ours = Decoder(vision_loaded.model), Decoder(vision_loaded.model)
    asked: list[tuple[Any, ...]] = []

    def choose(*args: Any) -> ChosenAttention:
        asked.append(args)
        return ChosenAttention(varlen(), varlen() if reads else None)

    ours.open_pool(12, 700)
    use_kernels(ours, choose)
    heads, shared = ours.config.num_attention_heads, ours.config.num_key_value_heads
    assert asked == [((13, PAGE_TOKENS, shared, ours.layers.head_dim), torch.float32, CPU, heads, 3)]
    said = []
    for model in (plain, ours):
        first, second = model.new_cache(), model.new_cache()
        logits = [model([DecoderInput(first, [1, *range(40, 300)]), DecoderInput(second, [1, 5, 6])])]
        logits.append(model([DecoderInput(second, [7]), DecoderInput(first, [*range(300, 360)])]))
        third = first.branch(270)
        logits.append(
            model([DecoderInput(first, [8]), DecoderInput(third, [9, 10], wanted=2), DecoderInput(second, [11])])
        )
        said.append(torch.cat(logits))
    torch.testing.assert_close(said[1], said[0], atol=1e-3, rtol=0)
