"""Real pages on real ports to attack: shared ones with a password and without, and what an attacker's tools need."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.limits import SHARED, Limits
from magistral_ui.sessions.public_engine import PublicEngine
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api.chat_endpoint import ChatBlocks
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.model_actions import ModelActions
from magistral_ui.ui.page import build_page
from magistral_ui.web.exposure import Exposure
from magistral_ui.web.hf_oauth import HuggingFaceLogin
from magistral_ui.web.passwords import Passwords
from tests.loopback import free_port
from tests.scripted_engine import Pause, Script, ScriptedEngine

ROOMY = replace(SHARED, messages_per_minute=6_000, requests_per_minute_per_address=600_000)
"""The limits of a shared page, but as many requests as a quick test sends."""


def script(request: GenerationRequest) -> Script:
    """Echoes the question; `wait` takes a minute."""
    said = getattr(request.prompt.turns[-1], "text", "")
    return [Reasoning("hm"), Pause(60 if said == "wait" else 0), Answer(f"you said {said}")]


@dataclass
class Served:
    """A running page."""

    url: str
    engine: ScriptedEngine
    visitors: Visitors
    page: ChatBlocks
    numbers: dict[str, int] = field(default_factory=dict)
    """Gradio's numbers of its functions, by name."""

    browsers: list["Browser"] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def browser(self, **headers: str) -> "Browser":
        self.browsers.append(Browser(self, headers))
        return self.browsers[-1]


class Browser:
    """What a browser sends, without being one: cookies are kept, actions are posted as the page posts them."""

    def __init__(self, served: Served, headers: dict[str, str]) -> None:
        self.served = served
        self.http = httpx.Client(base_url=served.url, headers=headers, trust_env=False, timeout=60)
        self.session = f"s{id(self):x}"
        self.place: Any = {}

    def open(self) -> "Browser":
        self.http.get("/", headers={"Accept": "text/html"})
        self.place = self.act("turns/attach").json()["place"]
        return self

    def act(self, action: str, data: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        return self.http.post(f"/magistral/act/{action}", json={"place": self.place, "data": data or {}, **more})

    def say(self, text: str, files: list[Any] | None = None) -> Any:
        """The page's value after a message."""
        answer = self.act("composer/say", message={"text": text, "files": files or []})
        assert answer.status_code == 200, answer.text
        return answer.json()["turns"]

    def upload(self, data: bytes, name: str = "a.png") -> httpx.Response:
        return self.http.post("/gradio_api/upload", files={"files": (name, data, "image/png")})


@contextmanager
def serving(
    folder: Path,
    limits: Limits = ROOMY,
    exposure: Exposure | None = None,
    passwords: dict[str, str] | None = None,
    play: Callable[[GenerationRequest], Script] = script,
    identity: HuggingFaceLogin | None = None,
    admins: frozenset[str] = frozenset(),
) -> Iterator[Served]:
    engine = ScriptedEngine(play)
    known = PublicEngine(engine, limits)
    visitors = Visitors(known, limits, History(folder / "data"))
    demo = build_page(known, visitors, login=passwords is not None, hugging_face=identity is not None)
    gate = Passwords(passwords) if passwords is not None else None
    port = free_port()
    known_by = {
        "passwords": gate,
        "token": "the token",
        "identity": identity,
        "admins": admins,
        "models": ModelActions(shared=True),
    }
    launch(demo, visitors, port=port, exposure=exposure or Exposure("network"), **known_by)  # type: ignore[arg-type]
    served = Served(f"http://127.0.0.1:{port}", engine, visitors, demo)
    for number, each in demo.fns.items():
        served.numbers.setdefault(str(each.api_name), number)
    try:
        yield served
    finally:
        for browser in served.browsers:
            browser.http.close()
        engine.close()
        visitors.close()
        close(demo)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page that strangers reach, without a password."""
    with serving(tmp_path_factory.mktemp("page")) as served:
        yield served


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with a password, behind a proxy that says who asks."""
    exposure = Exposure("proxy", url="https://chat.example.org")
    with serving(tmp_path_factory.mktemp("locked"), exposure=exposure, passwords={"": "right horse"}) as served:
        yield served
