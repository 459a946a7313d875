"""The owner's actions on GGUF models: which one runs, what is loaded for a key, and what is refused."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from magistral_ui.engines.base import EngineStatus, Loading, ModelInfo, ModelRequest, Ready, Unloaded
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.switching.machine import Machine
from magistral_ui.engines.weights.library import LibraryEntry
from magistral_ui.errors import BadInput, DeviceTooSmall
from magistral_ui.models.cards import DEMO, MINISTRAL_3_3B
from magistral_ui.ui.model_actions import ModelActions, SwitchableModels
from magistral_ui.ui.model_fit import Fit

KEY = f"{MINISTRAL_3_3B.gguf_repositories[0]}:Q4_K_M"
INFO = ModelInfo(MINISTRAL_3_3B.name, KEY, "Q4_K_M", "CPU", 8_192, engine="llama.cpp")
ENTRY = LibraryEntry(KEY, KEY.split(":")[0], None, "complete", 2 * 10**9, quantization="Q4_K_M")
CARD = LibraryEntry(MINISTRAL_3_3B.key, str(MINISTRAL_3_3B.repository), MINISTRAL_3_3B, "absent", 0)


class Computer:
    """A computer with GGUF files, whose engine and library only note what they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, entries: list[LibraryEntry]) -> None:
        self.asked: list[ModelRequest] = []
        self.downloads: list[str] = []
        self.engine: Any = SimpleNamespace(
            current=ModelRequest("demo"),
            card=DEMO,
            status=lambda: Ready(ModelInfo("demo", "demo", "float32", "CPU", 8_192)),
            idle=SimpleNamespace(minutes=0),
            running=list,
            last_failure=None,
            notice=None,
            switch=lambda request, _: self.asked.append(request) or True,
        )
        library: Any = SimpleNamespace(
            entries=lambda: entries, download=lambda key, _=None: self.downloads.append(key), disk_free=10**12
        )
        self.actions = ModelActions(self.engine, lambda: library)
        machine = Machine(None, LlamaDevice("cpu", "CPU", "CPU", 2**34, 2**34))
        fit = Fit(machine, machine, {}, None, lambda *_: (None, False))
        switchable = self.actions._switchable
        assert isinstance(switchable, SwitchableModels)
        monkeypatch.setattr(switchable._fit, "look", lambda: fit)

    def runs(self, status: EngineStatus, model: str, card: Any) -> str:
        """The key of the model that the list then tells as the current one."""
        self.engine.status, self.engine.card = lambda: status, card
        self.engine.current = ModelRequest(model)
        return str(self.actions.list({})["current"]["key"])


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Computer:
    return Computer(monkeypatch, [CARD, ENTRY])


@pytest.mark.parametrize("status", [Ready(INFO), Unloaded(INFO)])
@pytest.mark.parametrize("asked", [KEY, KEY.split(":")[0], MINISTRAL_3_3B.key])
def test_a_gguf_model_is_told_with_its_quantization_however_it_was_asked_for(
    computer: Computer, status: EngineStatus, asked: str
) -> None:
    assert computer.runs(status, asked, MINISTRAL_3_3B) == KEY


def test_while_it_loads_it_is_what_was_asked_for_and_nothing_is_offered(computer: Computer) -> None:
    assert computer.runs(Loading(), KEY, DEMO) == KEY  # its card is not known before
    assert computer.actions.list({})["offer"] is None
    other = computer.runs(Loading(), "some/where-GGUF:Q8_0", DEMO)
    names = {each["key"]: each["name"] for each in computer.actions.list({})["models"]}
    assert names[other] == other


def test_a_file_is_told_by_its_path(computer: Computer) -> None:
    card = replace(MINISTRAL_3_3B, key="any.gguf", repository=None)
    assert computer.runs(Ready(replace(INFO, source="any.gguf")), "/models/any.gguf", card) == "/models/any.gguf"


def test_a_key_with_a_quantization_is_loaded_as_it_is(computer: Computer) -> None:
    computer.actions.switch({"key": KEY})
    assert [(each.model, each.precision) for each in computer.asked] == [(KEY, "auto")]


def test_a_card_in_a_quantization_is_its_gguf_model(computer: Computer) -> None:
    computer.actions.switch({"key": MINISTRAL_3_3B.key, "precision": "Q4_K_M"})
    assert [(each.model, each.precision) for each in computer.asked] == [(KEY, "auto")]
    computer.actions.switch({"key": MINISTRAL_3_3B.key, "precision": "Q8_0"})
    assert computer.downloads == [KEY.replace("Q4_K_M", "Q8_0")], "what is not here is downloaded first"


@pytest.mark.parametrize("action", ["download", "switch"])
def test_what_does_not_fit_is_refused_before_it_is_downloaded(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    assert computer.actions._switchable is not None
    small = LlamaDevice("cpu", "CPU", "CPU", 5 * 2**30, 2**33)
    machine = Machine(None, small)
    found = {each.card.key: each for each in machine.candidates()}
    fit = Fit(machine, machine, found, None, lambda *_: (None, False))
    monkeypatch.setattr(computer.actions._switchable._fit, "look", lambda: fit)
    for quantization in ("BF16", "Q8_0", "UD-Q8_K_XL"):
        with pytest.raises(DeviceTooSmall):
            getattr(computer.actions, action)({"key": KEY.replace("Q4_K_M", quantization)})
    assert computer.downloads == []
    getattr(computer.actions, action)({"key": KEY.replace("Q4_K_M", "Q2_K")})
    assert computer.downloads == [KEY.replace("Q4_K_M", "Q2_K")]


def test_a_gguf_model_without_its_library_is_not_planned(computer: Computer) -> None:
    found = Machine(None, LlamaDevice("cpu", "CPU", "CPU", 2**34, 2**34)).candidates()
    Machine(None, None).check(found[-1], "Q4_K_M", None)


@pytest.mark.parametrize(
    "key", ["some/where-GGUF:Q4_K_M", f"{KEY.split(':')[0]}:../x", "../../etc:Q4_K_M", "/etc/passwd"]
)
def test_what_no_card_names_is_refused(computer: Computer, key: str) -> None:
    with pytest.raises(BadInput):
        computer.actions.switch({"key": key})
    assert computer.asked == []
