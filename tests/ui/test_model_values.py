"""What the list of models tells the page about GGUF files: choices, ways, and whose copies they are."""

from types import SimpleNamespace
from typing import Any

import pytest

from magistral_ui.chat.events import Json
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.switching.machine import Machine
from magistral_ui.engines.weights.library import LibraryEntry
from magistral_ui.models.cards import FAMILY, MINISTRAL_3_8B, RE_UPLOADS
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.ladder import Candidate, candidates
from magistral_ui.models.memory import GIB
from magistral_ui.ui.model_values import model_entry_value

CPU = DeviceBudget("cpu", 24 * GIB, 32 * GIB)
MACHINE = Machine(None, LlamaDevice("cpu", "CPU", "CPU", CPU.free, CPU.total))
FILES = MINISTRAL_3_8B.gguf_repositories[0]


def entry(**values: Any) -> LibraryEntry:
    of_card = {"key": MINISTRAL_3_8B.key, "repository": str(MINISTRAL_3_8B.repository), "card": MINISTRAL_3_8B}
    return LibraryEntry(**{**of_card, "state": "absent", "on_disk": 0, "total": 18 * 10**9, **values})


def held(name: str, **values: Any) -> LibraryEntry:
    """A GGUF model that is on this computer."""
    repository, quantization = name.split(":")
    about: dict[str, Any] = {"key": name, "repository": repository, "card": None, "quantization": quantization}
    return entry(**{**about, "state": "complete", "total": 5 * 10**9, **values})


def fit(found: tuple[Candidate, ...]) -> Any:
    pace = lambda _, precision: ({"Q4_K_M": 12.0}.get(precision, 5.0), False)  # noqa: E731
    keyed = {each.card.key: each for each in found}
    return SimpleNamespace(found=keyed, best=MINISTRAL_3_8B.key, pace=pace, machine=MACHINE)


def value(*entries: LibraryEntry, precisions: tuple[str, ...] | None = ("bfloat16", "nf4")) -> Json:
    found = candidates(CPU, precisions, gguf=CPU)
    return model_entry_value(entry(), fit(found), entries)


def test_gguf_choices_name_their_engine_and_what_they_need() -> None:
    choices = value()["choices"]
    engines = {each["precision"]: each["engine"] for each in choices}
    assert engines["Q4_K_M"] == engines["Q8_0"] == "llama.cpp"
    assert engines["nf4"] == "transformers"
    assert choices[0]["engine"] == "llama.cpp", "on a processor, llama.cpp comes first"
    needs = {each["precision"]: each["needs"] for each in choices}
    weights = {each["precision"]: each["weights"] for each in choices}
    assert weights["Q4_K_M"] < needs["Q4_K_M"] < needs["Q5_K_M"] < needs["Q8_0"] < CPU.free


def test_each_gguf_way_names_repository_and_quantization_and_its_download() -> None:
    ways = value()["ways"]
    gguf = {each["repository"]: each for each in ways if each["engine"] == "llama.cpp"}
    assert list(gguf) == [f"{FILES}:{name}" for name in ("Q8_0", "Q5_K_M", "Q4_K_M")]
    assert 5e9 < gguf[f"{FILES}:Q4_K_M"]["download"] < 7e9
    copies = [name for name, original in RE_UPLOADS.items() if original is MINISTRAL_3_8B]
    others = [each["repository"] for each in ways if each["engine"] == "transformers" and each["precision"] == "nf4"]
    assert others == [MINISTRAL_3_8B.repository, *copies]
    assert all(each["fits"] for each in ways)


def test_without_torch_there_are_only_gguf_ways() -> None:
    told = value(precisions=())
    assert {each["engine"] for each in (*told["ways"], *told["choices"])} == {"llama.cpp"}


def test_what_is_here_in_another_quantization_is_a_way_too() -> None:
    here = [held(f"{FILES}:Q4_K_M"), held(f"{FILES}:UD-Q4_K_XL"), held("else/where-GGUF:Q4_K_M")]
    ways = [each["repository"] for each in value(*here)["ways"]]
    assert ways.count(f"{FILES}:Q4_K_M") == 1
    assert ways[-1] == f"{FILES}:UD-Q4_K_XL"
    assert "else/where-GGUF:Q4_K_M" not in ways


@pytest.mark.parametrize("card", FAMILY, ids=lambda card: card.key)
def test_a_gguf_entry_belongs_to_the_model_whose_card_names_its_repository(card: Any) -> None:
    for repository in card.gguf_repositories:
        told = model_entry_value(held(f"{repository}:Q4_K_M"), fit(()))
        assert (told["original"], told["quantization"], told["repository"]) == (card.key, "Q4_K_M", repository)
    assert model_entry_value(held("else/where-GGUF:Q4_K_M"), fit(()))["original"] is None
