"""What runs if nobody named a model, where both libraries are installed: the ladder's choice, named so that it is found again."""

from types import SimpleNamespace
from typing import Any

import pytest

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.switching import default_model
from magistral_ui.engines.switching.default_model import resolve
from magistral_ui.engines.weights import gguf_entries
from magistral_ui.engines.weights.gguf_record import HeldFile, HeldModel
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2, MINISTRAL_3_8B, ModelCard
from magistral_ui.models.default_model import DefaultModel


def held(label: str) -> HeldModel:
    file = HeldFile(repository="a/b", commit="0" * 40, name="x.gguf", size=0, sha256="0" * 64)
    return HeldModel(label=label, files=(file,))


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the machine answers, as `card` and `precision`; `held` is what it was told to be here, `files` what is."""
    told: dict[str, Any] = {"card": DEMO, "precision": "auto", "held": None, "files": {}}

    def choose_default(_: object, held: Any) -> DefaultModel:
        told["held"] = held
        return DefaultModel(told["card"], "model_chosen_cpu_fits", told["precision"])

    machine = SimpleNamespace(pace=None, choose_default=choose_default)
    monkeypatch.setattr(default_model, "find_machine", lambda _: machine)
    monkeypatch.setattr(default_model, "is_complete", lambda card: card is MINISTRAL_3_8B)
    monkeypatch.setattr(
        gguf_entries,
        "held_models",
        lambda repository, _: [held(each) for each in told["files"].get(repository, ())],
    )
    return told


@pytest.mark.parametrize("request_", [ModelRequest("demo"), ModelRequest(None, precision="nf4"), ModelRequest(None)])
def test_what_leaves_no_choice_stays_as_it_is(request_: ModelRequest, chosen: dict[str, Any]) -> None:
    chosen["card"] = MAGISTRAL_1_2
    assert resolve(request_) == request_
    assert chosen["held"] is None


def test_a_downloaded_gguf_file_is_named_with_its_repository(chosen: dict[str, Any]) -> None:
    repository = MAGISTRAL_1_2.gguf_repositories[1]
    chosen |= {"card": MAGISTRAL_1_2, "precision": "Q4_K_M", "files": {repository: ["UD-Q4_K_XL", "IQ2_XXS", "other"]}}
    found = resolve(ModelRequest(None, device="cpu"))
    assert found == ModelRequest(f"{repository}:UD-Q4_K_XL", device="cpu", chosen_because="model_chosen_cpu_fits"), (
        "the nearest of the ladder's quantizations stands for it"
    )
    assert set(chosen["held"].quantizations(MAGISTRAL_1_2)) == {"Q4_K_M", "Q2_K"}
    assert not chosen["held"].quantizations(MINISTRAL_3_8B)
    assert chosen["held"].safetensors(MINISTRAL_3_8B)


@pytest.mark.parametrize(("card", "precision"), [(MINISTRAL_3_8B, "nf4"), (MAGISTRAL_1_2, "Q4_K_M"), (DEMO, "auto")])
def test_the_machine_s_best_need_not_be_downloaded(card: ModelCard, precision: str, chosen: dict[str, Any]) -> None:
    chosen |= {"card": card, "precision": precision}
    found = resolve(ModelRequest("auto"))
    assert (found.model, found.precision, found.chosen_because) == (card.key, precision, "model_chosen_cpu_fits")
    assert chosen["held"] is None


def test_without_llama_cpp_the_local_engine_chooses(chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_model, "has_llama_cpp", lambda: False)
    assert resolve(ModelRequest("auto")) == ModelRequest("auto")
