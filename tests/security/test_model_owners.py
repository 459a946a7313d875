"""Only the owner of a page may change models: others are refused every action, also by requests that no page would make."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from magistral_ui.client import Client, serving
from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.errors import BadInput, ModelRefused
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.actions import action_route
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.model_actions import ModelActions
from magistral_ui.web.access import admins_of
from magistral_ui.web.exposure import Exposure, exposure_of
from magistral_ui.web.middleware import middleware_stack, wrap
from magistral_ui.web.request_body import JsonBodies
from magistral_ui.web.uploads import Ownership
from tests.scripted_engine import ScriptedEngine
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


@contextmanager
def reached(exposure: Exposure) -> Iterator[Callable[..., httpx.Response]]:
    """Posts `models/list` through the whole middleware to a page with this exposure, from this machine."""
    engine = ScriptedEngine(lambda _: [])
    visitors = Visitors(engine)
    models = ModelActions(SwitchableEngine(ModelRequest("demo")), Untouched, shared=exposure.shared)  # type: ignore[arg-type]
    models._value = lambda *_: {"owner": True}  # type: ignore[method-assign]
    actions = action_route(Chat(engine, visitors), JsonBodies(visitors.limits), Ownership(), models)
    app = wrap(Starlette(), middleware_stack(visitors, exposure, [actions]))

    def post(body: str = '{"place": {}}', **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, client=("127.0.0.1", 5))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.post("/magistral/act/models/list", content=body, headers=named)

        return asyncio.run(send())

    yield post
    visitors.close()


@pytest.mark.parametrize(
    ("exposure", "owner"),
    [
        (exposure_of("127.0.0.1", "no", {}), True),
        (exposure_of("localhost", "no", {}), True),
        (exposure_of("0.0.0.0", "no", {}), False),
        (exposure_of("127.0.0.1", "yes", {}), False),
        (exposure_of("127.0.0.1", "https://chat.example.org", {}), False),
        (exposure_of("0.0.0.0", "no", {"SPACE_HOST": "me-page.hf.space"}), False),
    ],
    ids=["local", "localhost", "network", "share link", "proxy", "Space"],
)
def test_who_owns_a_page_follows_from_how_it_is_reached(exposure: Exposure, owner: bool) -> None:
    """Also for a browser on this machine, from which a share link's requests come."""
    with reached(exposure) as post:
        assert post().json() == {"models": {"owner": owner}}


@pytest.mark.parametrize("header", ["X_Forwarded_For", "X_Real_IP", "X_Forwarded_Proto", "Forwarded", "Via"])
def test_a_proxy_that_nobody_mentioned_makes_nobody_the_owner(header: str) -> None:
    with reached(Exposure()) as post:
        assert post(**{header: "127.0.0.1"}).json() == {"models": {"owner": False}}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:7860"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://localhost:7860"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Content_Type": "text/plain"}, 403),
        ({"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"}, 403),
    ],
    ids=["rebound", "rebound with port", "fetch", "sandboxed frame", "port", "other name", "no-cors", "form"],
)
def test_another_website_cannot_act_for_the_owner(headers: dict[str, str], status: int) -> None:
    with reached(Exposure()) as post:
        assert post(Origin="http://127.0.0.1:7860").json() == {"models": {"owner": True}}
        assert post(**headers).status_code == status


def test_another_website_cannot_show_the_owner_the_page(tmp_path: Path) -> None:
    """In a frame, it could have the owner click on what he does not see."""
    with serving_page(tmp_path, exposure=Exposure()) as page:
        answer = page.browser().http.get("/")
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]
