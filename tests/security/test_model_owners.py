"""Only the owner of a page may change models: others are refused every action, also by requests that no page would make."""

from pathlib import Path

import pytest

from magistral_ui.client import Client, serving
from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.local.switchable import SwitchableEngine
from magistral_ui.errors import BadInput, ModelRefused
from magistral_ui.ui.model_actions import ModelActions
from magistral_ui.web.access import admins_of
from magistral_ui.web.exposure import Exposure
from tests.security.conftest import serving as serving_page

CHANGES = ("download", "pause", "remove", "switch", "unload", "idle")
DATA = {"key": "demo", "minutes": 1, "admin": True, "owner": True, "running": "stop"}


class Untouched:
    """Stands for the library; nothing of it may be asked."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)


@pytest.fixture
def actions() -> ModelActions:
    return ModelActions(SwitchableEngine(ModelRequest("demo")), Untouched, shared=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("client", [Client(), Client(login="name-1"), Client("192.0.2.1", "browser")])
def test_others_are_refused_every_action(actions: ModelActions, client: Client) -> None:
    with serving(client):
        for name in CHANGES:
            with pytest.raises(ModelRefused) as refused:
                getattr(actions, name)(DATA)
            assert refused.value.message.key == "not_the_owner"
        assert actions.list(DATA) == {"owner": False}


def test_only_listed_models_are_loaded() -> None:
    """No path and no repository that a request names is tried."""
    from magistral_ui.engines.weights.library import ModelLibrary

    actions = ModelActions(SwitchableEngine(ModelRequest("demo")), ModelLibrary)
    for key in ("/etc", "../demo", "owner/name", "", None, 7, ["demo"], "auto"):
        for name in ("switch", "download", "pause", "remove"):
            with pytest.raises(BadInput):
                getattr(actions, name)({"key": key})


@pytest.mark.parametrize(
    "data",
    [
        {"key": "demo", "precision": "int3"},
        {"key": "demo", "precision": ["nf4"]},
        {"key": "demo", "context": True},
        {"key": "demo", "context": 10**9},
        {"key": "demo", "running": "kill"},
    ],
)
def test_impossible_choices_are_refused(data: dict[str, object]) -> None:
    from magistral_ui.engines.weights.library import ModelLibrary

    with pytest.raises(BadInput):
        ModelActions(SwitchableEngine(ModelRequest("demo")), ModelLibrary).switch(data)


def test_only_named_logins_own_a_shared_page(tmp_path: Path) -> None:
    people = {"Ann": "right horse battery", "bob": "wrong donkey battery"}
    with serving_page(
        tmp_path, exposure=Exposure("network"), passwords=people, admins=admins_of(" ANN ,carol")
    ) as page:
        ann, bob = page.browser(), page.browser()
        for browser, name in ((ann, "Ann"), (bob, "bob")):
            browser.http.post("/login", data={"username": name, "password": people[name]})
        assert ann.act("models/list").json()["models"]["owner"] is True
        assert bob.act("models/list").json() == {"models": {"owner": False}}
        for name in CHANGES:
            refused = bob.act(f"models/{name}", DATA)
            assert refused.json()["alert"]["key"] == "not_the_owner"
        assert page.browser().act("models/list").status_code == 401


def test_without_names_nobody_owns_a_shared_page(tmp_path: Path) -> None:
    with serving_page(tmp_path) as page:
        stranger = page.browser()
        assert stranger.act("models/list").json() == {"models": {"owner": False}}
        for name in CHANGES:
            assert stranger.act(f"models/{name}", DATA).json()["alert"]["key"] == "not_the_owner"


def test_on_a_local_page_whoever_gets_in_is_the_owner() -> None:
    value = ModelActions().list({})
    assert value["owner"] is True
    assert value["switchable"] is False
    assert value["why_not"] == {"key": "models_elsewhere", "values": {}}
