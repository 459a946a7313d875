"""Where and in what a model runs, on machines that are not here: the choice depends on their bytes alone."""

import pytest

from magistral_ui.engines.weights import devices, freed_memory
from magistral_ui.engines.weights.devices import Device, choose_default, choose_plan, find_device, freed, look_again
from magistral_ui.errors import BadSetting, DeviceTooSmall
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2, MINISTRAL_3_3B, MINISTRAL_3_8B, MINISTRAL_3_14B
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, MAGISTRAL_SMALL_TEXT, MINISTRAL_3_3B_SHAPE, ModelShape


def machine(type: str, gigabytes: float, used: float = 0.0) -> Device:
    return Device(type, f"{gigabytes} GB of {type}", int((gigabytes - used) * GIB), int(gigabytes * GIB))


@pytest.mark.parametrize(
    ("device", "card", "why"),
    [
        (machine("cuda", 24), MAGISTRAL_1_2, "model_chosen_gpu_fits"),
        (machine("cuda", 80), MAGISTRAL_1_2, "model_chosen_gpu_fits"),
        (machine("cuda", 16), MINISTRAL_3_14B, "model_chosen_gpu_fits"),
        (machine("cuda", 24, used=12), MINISTRAL_3_8B, "model_chosen_gpu_fits"),
        (machine("cuda", 8), MINISTRAL_3_3B, "model_chosen_gpu_fits"),
        (machine("cuda", 4), DEMO, "model_chosen_gpu_too_small"),
        (machine("mps", 24), MAGISTRAL_1_2, "model_chosen_gpu_fits"),
        (machine("mps", 12), MINISTRAL_3_8B, "model_chosen_gpu_fits"),
        (machine("mps", 4), DEMO, "model_chosen_gpu_too_small"),
        (machine("cpu", 512), MAGISTRAL_1_2, "model_chosen_cpu_fits"),
        (machine("cpu", 4), DEMO, "model_chosen_no_gpu"),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_the_best_model_of_a_machine(device: Device, card: object, why: str) -> None:
    assert choose_default(device, lambda _: True)[:2] == (card, why)


@pytest.mark.parametrize("type", ["cuda", "mps", "cpu"])
def test_nothing_that_is_not_downloaded_runs_unasked(type: str) -> None:
    assert choose_default(machine(type, 80), lambda _: False)[:2] == (DEMO, "model_chosen_not_downloaded")


def test_of_what_is_downloaded_the_best_runs() -> None:
    """Who had Magistral as the default keeps it."""
    held = {MAGISTRAL_1_2.key, MINISTRAL_3_3B.key}
    chosen = choose_default(machine("cuda", 24), lambda card: card.key in held)
    assert (chosen.card, chosen.precision) == (MAGISTRAL_1_2, "nf4")
    assert choose_default(machine("cuda", 12), lambda card: card.key in held).card is MINISTRAL_3_3B


def test_what_would_be_too_slow_does_not_run_unasked() -> None:
    chosen = choose_default(machine("cpu", 64), lambda _: True, lambda shape, precision: (1.0, False))
    assert chosen[:2] == (DEMO, "model_chosen_too_slow")


def test_a_card_is_never_timed_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        raise AssertionError

    assert choose_default(machine("cuda", 24), lambda _: True, pace).card is MAGISTRAL_1_2
    assert choose_default(machine("cpu", 64), lambda _: False, pace).card is DEMO, "nor is anything that may not run"


def test_the_ladder_keeps_to_the_precision_that_was_asked_for() -> None:
    chosen = choose_default(machine("cuda", 24), lambda _: True, precision="bfloat16")
    assert (chosen.card, chosen.precision) == (MINISTRAL_3_8B, "bfloat16")


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (machine("cuda", 24), "nf4"),
        (machine("cuda", 48), "nf4"),
        (machine("cuda", 80), "bfloat16"),
        (machine("mps", 24), "nf4"),
        (machine("mps", 96), "bfloat16"),
        (machine("cpu", 32), "nf4"),
        (machine("cpu", 128), "bfloat16"),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_precision_by_itself(device: Device, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert choose_plan("m", MAGISTRAL_SMALL_1_2, device).precision == precision


@pytest.mark.parametrize(("capability", "precision"), [("AVX512", "nf4"), ("AVX2", "int8"), ("DEFAULT", "int8")])
def test_a_processor_gets_what_is_faster_there(
    capability: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cpu", 48)).precision == precision


def test_a_slow_processor_is_told_before_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_fast_nf4", lambda: False)
    monkeypatch.setattr(devices.torch, "get_num_threads", lambda: 4)
    cpu = machine("cpu", 40)
    told = devices.slow_pace(MAGISTRAL_SMALL_1_2, choose_plan("m", MAGISTRAL_SMALL_1_2, cpu, "nf4"), cpu)
    assert told is not None
    assert told.values == {"seconds": 6}
    assert "{" not in sentence(told)
    monkeypatch.setattr(devices, "has_fast_nf4", lambda: True)
    assert devices.slow_pace(MAGISTRAL_SMALL_1_2, choose_plan("m", MAGISTRAL_SMALL_1_2, cpu, "nf4"), cpu) is None
    cuda = machine("cuda", 24)
    assert devices.slow_pace(MAGISTRAL_SMALL_1_2, choose_plan("m", MAGISTRAL_SMALL_1_2, cuda), cuda) is None


def test_a_slow_processor_prefers_what_is_fastest_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bits take a quarter of the time of 4; nobody writes 40,000 tokens at that pace."""
    monkeypatch.setattr(devices, "has_fast_nf4", lambda: False)
    planned = choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cpu", 52))
    assert planned.precision == "bfloat16"
    assert 8_192 <= planned.context < 40_960
    assert choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cpu", 24)).precision == "nf4"


def test_without_bitsandbytes_nothing_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "can_quantize", lambda: False)
    assert choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cpu", 128)).precision == "bfloat16"
    assert choose_default(machine("cuda", 24), lambda _: True)[::2] == (MINISTRAL_3_8B, "bfloat16")
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "nf4")
    assert "bitsandbytes" in sentence(refused.value.message)


def test_what_does_not_fit_says_what_would() -> None:
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("Magistral Small 1.2", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "bfloat16")
    said = sentence(refused.value.message)
    assert "--precision nf4, which fits" in said
    assert "{" not in said
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("Magistral Small 1.2", MAGISTRAL_SMALL_1_2, machine("cuda", 16))
    said = sentence(refused.value.message)
    assert "needs 18.1 GB" in said
    assert "--model demo" in said
    assert "{" not in said


def test_where_nothing_fits_the_smallest_form_is_named() -> None:
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cuda", 8), "bfloat16")
    assert (refused.value.message.key, refused.value.message.values["precision"]) == ("device_too_small", "nf4")


def test_fewer_tokens_may_fit_where_the_usual_ones_do_not() -> None:
    tight = machine("cuda", 16, used=0.2)
    assert choose_plan("m", MAGISTRAL_SMALL_TEXT, tight, context_length=512).context >= 512
    with pytest.raises(DeviceTooSmall):
        choose_plan("m", MAGISTRAL_SMALL_TEXT, tight)


def test_a_shorter_context_leaves_room_for_larger_images() -> None:
    card = machine("cuda", 8)
    assert choose_plan("m", MINISTRAL_3_3B_SHAPE, card).image_side == 1_024
    assert choose_plan("m", MINISTRAL_3_3B_SHAPE, card, context_length=16_384).image_side == 1_540


def test_a_checkpoint_s_own_bytes_are_believed() -> None:
    """Dynamic quantization keeps some layers in 16 bits: its files are larger than nf4 is by the book."""
    by_the_book = choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "nf4")
    dynamic = choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "nf4", weights=by_the_book.weights + GIB)
    assert by_the_book.kv_bytes - dynamic.kv_bytes == GIB


def test_several_graphics_cards_are_used_as_far_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [20 * GIB, 23 * GIB, 2 * GIB]
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda n: (free[n], 24 * GIB))
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda n: "RTX" if n < 2 else "GT")
    found = find_device()
    assert [each.index for each in found.all] == [1, 0, 2]
    planned = choose_plan("m", MAGISTRAL_SMALL_1_2, found)
    assert (planned.precision, len(planned.shares)) == ("nf4", 1)
    assert len(choose_plan("m", MAGISTRAL_SMALL_1_2, found, "int8").shares) == 2
    assert found.first(1).name == "RTX"
    assert found.first(2).name == "2 × RTX"
    assert found.first(3).name == "RTX + RTX + GT"
    free[1] = 3 * GIB
    again = look_again(found.first(2))
    assert [(each.index, each.free // GIB) for each in again.all] == [(1, 3), (0, 20)]
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("m", MAGISTRAL_SMALL_1_2, find_device(), "bfloat16")
    assert refused.value.message.values["free"] == 26.8
    assert "RTX + RTX + GT" in sentence(refused.value.message)


def test_a_device_that_is_not_here_is_named() -> None:
    assert find_device("cpu").type == "cpu"
    for wanted in ("mps", "cuda", "gpu"):
        with pytest.raises(BadSetting):
            find_device(wanted)


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, int, int]]:
    """Free, total and reserved bytes of two graphics cards, which a test may change."""
    cards = {0: (4 * GIB, 24 * GIB, 18 * GIB), 1: (9 * GIB, 12 * GIB, 2 * GIB)}
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda index: cards[index][:2])
    monkeypatch.setattr(devices.torch.cuda, "memory_reserved", lambda index: cards[index][2])
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda index: f"RTX {index}")
    return cards


def test_each_card_will_have_what_its_allocator_holds(two_cards: dict[int, tuple[int, int, int]]) -> None:
    """Whatever was planned or counted: weights, keys and values, recorded graphs, and what is kept for later."""
    assert find_device("gpu") == find_device("cuda") == find_device()
    later = freed(find_device(), held=1)
    assert [(each.index, each.free) for each in later.all] == [(1, 11 * GIB), (0, 22 * GIB)]
    assert [each.free for each in later.place.all] == [11 * GIB, 22 * GIB]
    two_cards[0] = (4 * GIB, 24 * GIB, 0)
    two_cards[1] = (11 * GIB, 12 * GIB, 2 * GIB)  # the two were not read at the same moment
    assert [each.free for each in freed(find_device(), held=GIB).all] == [12 * GIB, 4 * GIB]


@pytest.mark.parametrize("type", ["cpu", "mps"])
def test_elsewhere_what_the_model_holds_will_be_free(type: str) -> None:
    device = machine(type, 16, used=6)
    assert freed(device, 4 * GIB).free == 14 * GIB
    assert freed(device, 20 * GIB).free == device.total
    assert freed(device, 0) == device


def test_a_switch_on_a_card_is_planned_as_if_it_were_empty(two_cards: dict[int, tuple[int, int, int]]) -> None:
    two_cards.pop(1)
    device = find_device("cuda")
    with pytest.raises(DeviceTooSmall):
        choose_plan("m", MAGISTRAL_SMALL_1_2, device)
    two_cards[0] = (4 * GIB, 24 * GIB, 19 * GIB)
    assert choose_plan("m", MAGISTRAL_SMALL_1_2, freed(device, 0)).precision == "nf4"


def test_what_the_allocators_keep_is_given_back(
    two_cards: dict[int, tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = []

    def empty() -> None:
        emptied.append("cuda")
        for index, (free, total, reserved) in two_cards.items():
            two_cards[index] = (free + reserved, total, 0)

    monkeypatch.setattr(devices.torch.cuda, "empty_cache", empty)
    monkeypatch.setattr(freed_memory, "trim_heap", lambda: emptied.append("host"))
    monkeypatch.setattr(devices.torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.accelerator, "empty_host_cache", lambda: emptied.append("pinned"))
    before = freed(find_device(), 0)
    freed_memory.empty_device_cache()
    assert sorted(emptied) == ["cuda", "host", "pinned"]
    after = freed(find_device(), 0)
    assert {each.index: each.free for each in before.all} == {each.index: each.free for each in after.all}
