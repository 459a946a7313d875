"""The page's actions on models over HTTP: from a hub on loopback into the cache, into the engine, and away again."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub.constants as constants
import pytest
import torch
from starlette.applications import Starlette
from transformers import AutoModelForImageTextToText

from magistral_ui.engines.base import Loading, ModelRequest
from magistral_ui.engines.switching import machine
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.engines.weights import devices, large_files
from magistral_ui.engines.weights.library import ModelLibrary
from magistral_ui.engines.weights.quantization import quantization
from magistral_ui.engines.weights.quantized_cache import ORIGIN_FILE, copies_folder
from magistral_ui.errors import Message
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import MINISTRAL_3_3B, MINISTRAL_3_8B, RE_UPLOADS, ModelCard
from magistral_ui.models.ladder import LADDER_CONTEXT
from magistral_ui.models.memory import needed_bytes
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.actions import action_route
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.model_actions import ModelActions
from magistral_ui.web.request_body import JsonBodies
from magistral_ui.web.request_guard import ACTIONS_PATH
from magistral_ui.web.uploads import Ownership
from tests.hub.checkpoints import make_repository
from tests.hub.server import Hub
from tests.waiting import until

SMALL, OTHER = MINISTRAL_3_3B, MINISTRAL_3_8B
MAX_TOKENS = 60


class Page:
    """A tab of the page of one owner, over the real engine and library."""

    def __init__(self, model: str | None = "demo") -> None:
        self.engine = SwitchableEngine(ModelRequest(model, device="cpu", threads=1))
        self.library = ModelLibrary(self.engine.repositories_in_use)
        self.models_actions = ModelActions(self.engine, lambda: self.library)
        chat = Chat(self.engine, Visitors(self.engine))
        self.app = Starlette(
            routes=[action_route(chat, JsonBodies(chat.visitors.limits), Ownership(), self.models_actions)]
        )
        self.place: Any = {}
        self.engine.start()
        self.loaded()
        self.act("turns/attach")

    def act(self, action: str, message: object = None, settings: object = None, **data: object) -> dict[str, Any]:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://page") as client:
                more = {"message": message, "settings": settings}
                body = {"place": self.place, "data": data, **{name: value for name, value in more.items() if value}}
                return await client.post(ACTIONS_PATH + action, content=json.dumps(body))

        answer = asyncio.run(ask())
        assert answer.status_code == 200, answer.text
        parts: dict[str, Any] = answer.json()
        self.place = parts.get("place", self.place)
        return parts

    def models(self) -> dict[str, Any]:
        found: dict[str, Any] = self.act("models/list")["models"]
        return found

    def model(self, key: str) -> dict[str, Any]:
        return next(each for each in self.models()["models"] if each["key"] == key)

    def download(self, key: str) -> dict[str, Any]:
        self.act("models/download", key=key)
        until(lambda: self.model(key)["state"] != "downloading")
        return self.model(key)

    def switch(self, key: str) -> dict[str, Any]:
        assert "alert" not in self.act("models/switch", key=key)
        return self.loaded()

    def fail_to_switch(self, key: str) -> dict[str, Any]:
        """Files that are broken may be looked for on the hub first, so that the switch comes later."""
        assert "alert" not in self.act("models/switch", key=key)
        until(lambda: self.models()["failure"] is not None)
        return self.loaded()

    def loaded(self) -> dict[str, Any]:
        until(lambda: not isinstance(self.engine.status(), Loading))
        return self.models()

    def say(self) -> None:
        """A message is answered by the model that is there, in few words: random weights would fill the whole context."""
        body = {"message": {"text": "17 + 25 = ?", "files": []}, "settings": {"params": {"max_tokens": MAX_TOKENS}}}
        assert self.act("composer/say", **body)["turns"]["alert"] is None
        until(lambda: not self.engine.running())
        reply = self.act("turns/ended")["turns"]["turns"][-1]
        assert (reply["role"], reply["failure"]) == ("assistant", None)
        assert reply["usage"]["completion_tokens"] > 0

    def close(self) -> None:
        self.models_actions.close()
        self.engine.close()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("repositories")
    return {card.key: make_repository(base / card.key, card) for card in (SMALL, OTHER)}


@pytest.fixture
def page(hub: Hub, repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """On a computer that has room for what the cards tell, and where nothing needs to be timed."""
    memory = devices.psutil.virtual_memory()._replace(available=2**39, total=2**39)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(machine, "has_llama_cpp", lambda: False)
    monkeypatch.setattr(machine, "estimated_pace", lambda *_: 9.0)
    for card in (SMALL, OTHER):
        hub.add(name_of(card), repositories[card.key], card.revision or "")
    page = Page()
    yield page
    if hub.step:
        hub.step.set()
    page.close()


def name_of(card: ModelCard) -> str:
    return str(card.repository)


def folder_of(card: ModelCard) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{name_of(card).replace('/', '--')}"


def test_a_model_is_listed_downloaded_and_run(page: Page, hub: Hub) -> None:
    listed = page.models()
    assert (listed["owner"], listed["switchable"], listed["current"]["key"]) == (True, True, "demo")
    assert page.model(SMALL.key)["state"] == "absent"
    complete = page.download(SMALL.key)
    assert (complete["state"], complete["done"]) == ("complete", complete["total"])
    assert complete["on_disk"] > 0
    now = page.switch(SMALL.key)
    assert (now["current"]["key"], now["current"]["state"], now["failure"]) == (SMALL.key, "ready", None)
    page.say()
    now = page.switch("demo")
    assert now["current"]["key"] == "demo"
    page.say()


def test_a_download_pauses_and_resumes(page: Page, hub: Hub) -> None:
    hub.step = threading.Event()
    page.act("models/download", key=SMALL.key)
    until(lambda: page.model(SMALL.key)["done"] > 0 and bool(list(folder_of(SMALL).glob("blobs/*.partial"))))
    assert page.model(SMALL.key)["state"] == "downloading"
    page.act("models/pause", key=SMALL.key)
    hub.step.set()
    until(lambda: page.model(SMALL.key)["state"] != "downloading")
    paused = page.model(SMALL.key)
    assert (paused["state"], paused["failure"]) == ("paused", None)
    assert paused["on_disk"] > 0
    hub.step = None
    assert page.download(SMALL.key)["state"] == "complete"


def test_only_that_model_is_removed_and_never_the_one_that_runs(page: Page) -> None:
    page.download(SMALL.key)
    page.download(OTHER.key)
    for card in (SMALL, OTHER):
        copy = copies_folder() / f"{card.key}--nf4"
        copy.mkdir(parents=True)
        (copy / ORIGIN_FILE).write_text(json.dumps({"model": name_of(card)}), encoding="utf-8")
    page.switch(SMALL.key)
    assert page.act("models/remove", key=SMALL.key)["alert"]["key"] == "model_in_use"
    assert page.model(SMALL.key)["state"] == "complete"
    page.switch("demo")
    page.act("models/remove", key=SMALL.key)
    assert page.model(SMALL.key)["state"] == "absent"
    assert not folder_of(SMALL).exists()
    assert not (copies_folder() / f"{SMALL.key}--nf4").exists()
    assert page.model(OTHER.key)["state"] == "complete"
    assert (copies_folder() / f"{OTHER.key}--nf4").exists()


def test_a_partial_download_is_removed(page: Page, hub: Hub) -> None:
    hub.step = threading.Event()
    page.act("models/download", key=SMALL.key)
    until(lambda: bool(list(folder_of(SMALL).glob("blobs/*.partial"))))
    hub.step.set()
    page.act("models/pause", key=SMALL.key)
    until(lambda: page.model(SMALL.key)["state"] != "downloading")
    (folder_of(SMALL) / "blobs" / ("a" * 64)).write_bytes(b"a shard that came whole")
    page.act("models/remove", key=SMALL.key)
    removed = page.model(SMALL.key)
    assert (removed["state"], removed["on_disk"]) == ("absent", 0)
    assert not folder_of(SMALL).exists()


def test_an_unloaded_model_is_loaded_by_the_next_message(page: Page) -> None:
    page.download(SMALL.key)
    page.switch(SMALL.key)
    page.act("models/unload")
    until(lambda: page.models()["current"]["state"] == "unloaded")
    assert page.act("models/remove", key=SMALL.key)["alert"]["key"] == "model_in_use"
    page.say()
    now = page.loaded()
    assert (now["current"]["key"], now["current"]["state"]) == (SMALL.key, "ready")


def test_a_broken_checkpoint_brings_the_model_before_back(page: Page) -> None:
    page.download(SMALL.key)
    for weights in folder_of(SMALL).glob("snapshots/*/model-*"):
        weights.resolve().write_bytes(b"broken")
    now = page.fail_to_switch(SMALL.key)
    assert (now["current"]["key"], now["current"]["state"]) == ("demo", "ready")
    said(now["failure"])
    page.say()


def said(failure: dict[str, Any]) -> str:
    """The failure is a sentence of the page."""
    text = sentence(Message(failure["key"], failure["values"]))
    assert len(text) > 20
    return text


def test_a_full_disk_is_said(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = large_files.shutil.disk_usage("/")._replace(free=1_000)
    monkeypatch.setattr(large_files.shutil, "disk_usage", lambda _: usage)
    failed = page.download(SMALL.key)
    assert failed["failure"]["key"] == "disk_full"
    said(failed["failure"])
    assert page.models()["failure"] == failed["failure"]


def test_an_offline_computer_is_said(page: Page, offline: Callable[[], None]) -> None:
    offline()
    failed = page.download(SMALL.key)
    assert (failed["state"], failed["failure"]["key"]) == ("absent", "hub_offline")
    said(failed["failure"])


def test_the_model_that_the_machine_chose_stays_the_same(hub: Hub, page: Page) -> None:
    """Once a larger one is on disk, the machine would choose that: also after a switch to it that failed."""
    page.close()
    chosen = Page(None)
    try:
        assert chosen.models()["current"]["key"] == "demo"
        chosen.download(SMALL.key)
        chosen.act("models/unload")
        until(lambda: chosen.models()["current"]["state"] == "unloaded")
        chosen.say()
        assert chosen.loaded()["current"]["key"] == "demo"
        for weights in folder_of(SMALL).glob("snapshots/*/model-*"):
            weights.resolve().write_bytes(b"broken")
        assert chosen.fail_to_switch(SMALL.key)["current"]["key"] == "demo"
    finally:
        chosen.close()


def test_choices_say_what_this_kind_of_device_needs(page: Page) -> None:
    choices = page.model(SMALL.key)["choices"]
    assert choices
    shape = SMALL.shape
    assert shape is not None
    for each in choices:
        assert each["needs"] == needed_bytes(shape, each["precision"], "cpu", LADDER_CONTEXT)
        assert each["needs"] > each["weights"]
    assert page.model(SMALL.key)["license"] == "Apache-2.0"
    assert "en" in page.model(SMALL.key)["languages"]


def test_what_fits_with_a_short_context_only_is_told_with_that_one(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = devices.psutil.virtual_memory()._replace(available=2**33, total=2**34)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(devices, "good_precisions", lambda _: ("nf4",))
    (choice,) = page.model(SMALL.key)["choices"]
    shape = SMALL.shape
    assert shape is not None
    assert choice["context"] < LADDER_CONTEXT
    assert choice["needs"] < needed_bytes(shape, "nf4", "cpu", LADDER_CONTEXT)


def test_the_current_model_runs_while_the_next_one_is_downloaded(page: Page, hub: Hub) -> None:
    hub.step = threading.Event()
    assert "alert" not in page.act("models/switch", key=SMALL.key)
    until(lambda: page.model(SMALL.key)["done"] > 0)
    assert page.models()["current"] == page.models()["current"] | {"key": "demo", "state": "ready"}
    page.say()
    hub.step.set()
    until(lambda: page.models()["current"]["key"] == SMALL.key)
    assert page.loaded()["current"]["state"] == "ready"


def test_what_cannot_fit_is_not_downloaded_to_switch(page: Page, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = devices.psutil.virtual_memory()._replace(available=2**30, total=2**30)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    assert page.act("models/switch", key=SMALL.key)["alert"]["key"] == "model_needs_memory"
    assert not hub.served
    assert page.model(SMALL.key)["fits"] is False


def test_a_known_re_upload_is_a_way_to_get_a_model(
    page: Page, hub: Hub, repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "good_precisions", lambda _: ("bfloat16", "nf4"))
    name = next(name for name, original in RE_UPLOADS.items() if original is SMALL)
    ways = {(each["repository"], each["precision"]): each for each in page.model(SMALL.key)["ways"]}
    assert set(ways) == {(SMALL.repository, "bfloat16"), (SMALL.repository, "nf4"), (name, "nf4")}
    assert ways[name, "nf4"]["download"] < ways[SMALL.repository, "nf4"]["download"] / 2
    assert all(each["memory"] > 0 for each in ways.values())
    assert name not in {each["key"] for each in page.models()["models"]}
    hub.add(name, repositories[SMALL.key])
    complete = page.download(name)
    assert (complete["state"], complete["total"]) == ("complete", complete["on_disk"])
    assert page.switch(name)["current"]["key"] == name
    page.switch("demo")
    page.act("models/remove", key=name)
    assert name not in {each["key"] for each in page.models()["models"]}


@pytest.fixture(scope="module")
def quantized(repositories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A re-upload as transformers saves it: in nf4, and without what only Mistral's repositories have."""
    model = AutoModelForImageTextToText.from_pretrained(
        repositories[SMALL.key], dtype=torch.bfloat16, quantization_config=quantization("nf4", "cpu")
    )
    folder = tmp_path_factory.mktemp("quantized") / "copy"
    model.save_pretrained(folder)
    return folder


def test_a_quantized_re_upload_is_downloaded_and_run(page: Page, hub: Hub, quantized: Path) -> None:
    name = next(name for name, original in RE_UPLOADS.items() if original is SMALL)
    hub.add(name, quantized, "c" * 40).card = {"base_model": SMALL.repository, "base_model_relation": "quantized"}
    assert "alert" not in page.act("models/switch", key=name)
    until(lambda: page.models()["current"]["key"] == name)
    now = page.loaded()
    assert (now["current"]["state"], now["current"]["precision"], now["failure"]) == ("ready", "nf4", None)
    copy = page.model(name)
    assert (copy["state"], copy["original"], copy["done"]) == ("complete", SMALL.key, copy["total"])
    assert page.model(SMALL.key)["state"] == "absent"
    page.say()
    assert page.act("models/remove", key=name)["alert"]["key"] == "model_in_use"


def test_a_downloaded_model_that_comes_too_late_is_said(page: Page, hub: Hub) -> None:
    """Another model is being loaded when it is complete."""
    page.download(SMALL.key)
    busy, page.engine._busy = page.engine._busy, True
    models = page.models_actions._switchable
    assert models is not None
    models._switch_later(page.engine.current.with_model(SMALL.key, "auto", None), "wait")
    page.engine._busy = busy
    failure = page.models()["failure"]
    assert failure == {"key": "model_not_switched", "values": {"model": SMALL.name}}
    said(failure)


def test_the_time_of_a_download_is_expected_at_the_rate_last_seen(page: Page) -> None:
    assert page.model(OTHER.key)["seconds"] is None
    page.library._rate = 1e6
    listed = page.model(OTHER.key)
    assert listed["seconds"] == pytest.approx(listed["total"] / 1e6)
    assert listed["seconds_left"] is None
    assert page.download(SMALL.key)["seconds"] is None
