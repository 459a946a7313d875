"""Where and in what a model runs, on machines that are not here: the choice depends on their bytes alone."""

import pytest

from magistral_ui.engines.local import devices
from magistral_ui.engines.local.devices import Device, choose_default, choose_plan, find_device
from magistral_ui.errors import BadSetting, DeviceTooSmall
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, MAGISTRAL_SMALL_TEXT
from magistral_ui.ui.i18n import sentence_of


def machine(type: str, gigabytes: float, used: float = 0.0) -> Device:
    return Device(type, f"{gigabytes} GB of {type}", int((gigabytes - used) * GIB), int(gigabytes * GIB))


@pytest.mark.parametrize(
    ("device", "card", "why"),
    [
        (machine("cuda", 24), MAGISTRAL_1_2, "model_chosen_gpu_fits"),
        (machine("cuda", 80), MAGISTRAL_1_2, "model_chosen_gpu_fits"),
        (machine("cuda", 16), DEMO, "model_chosen_gpu_too_small"),
        (machine("cuda", 24, used=12), DEMO, "model_chosen_gpu_too_small"),
        (machine("mps", 24), MAGISTRAL_1_2, "model_chosen_gpu_fits"),
        (machine("mps", 12), DEMO, "model_chosen_gpu_too_small"),
        (machine("cpu", 512), DEMO, "model_chosen_no_gpu"),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_the_model_for_someone_who_names_none(device: Device, card: object, why: str) -> None:
    assert choose_default(device) == (card, why)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (machine("cuda", 24), "nf4"),
        (machine("cuda", 48), "int8"),
        (machine("cuda", 80), "bfloat16"),
        (machine("mps", 24), "nf4"),
        (machine("mps", 96), "bfloat16"),
        (machine("cpu", 32), "nf4"),
        (machine("cpu", 128), "bfloat16"),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_precision_by_itself(device: Device, precision: str) -> None:
    assert choose_plan("m", MAGISTRAL_SMALL_1_2, device).precision == precision


def test_without_bitsandbytes_nothing_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "can_quantize", lambda: False)
    assert choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cpu", 128)).precision == "bfloat16"
    assert choose_default(machine("cuda", 24))[0] is DEMO
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "nf4")
    assert "bitsandbytes" in sentence_of(refused.value)


def test_what_does_not_fit_says_what_would() -> None:
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("Magistral Small 1.2", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "bfloat16")
    said = sentence_of(refused.value)
    assert "--precision nf4, which fits" in said
    assert "{" not in said
    with pytest.raises(DeviceTooSmall) as refused:
        choose_plan("Magistral Small 1.2", MAGISTRAL_SMALL_1_2, machine("cuda", 16))
    said = sentence_of(refused.value)
    assert "needs 18.3 GB" in said
    assert "--model demo" in said
    assert "{" not in said


def test_fewer_tokens_may_fit_where_the_usual_ones_do_not() -> None:
    tight = machine("cuda", 16)
    assert choose_plan("m", MAGISTRAL_SMALL_TEXT, tight, context_length=512).context >= 512
    with pytest.raises(DeviceTooSmall):
        choose_plan("m", MAGISTRAL_SMALL_TEXT, tight)


def test_a_checkpoint_s_own_bytes_are_believed() -> None:
    """Dynamic quantization keeps some layers in 16 bits: its files are larger than nf4 is by the book."""
    by_the_book = choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "nf4")
    dynamic = choose_plan("m", MAGISTRAL_SMALL_1_2, machine("cuda", 24), "nf4", weights=by_the_book.weights + GIB)
    assert by_the_book.kv_bytes - dynamic.kv_bytes == GIB


def test_a_device_that_is_not_here_is_named() -> None:
    assert find_device("cpu").type == "cpu"
    with pytest.raises(BadSetting):
        find_device("mps")
