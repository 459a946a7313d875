"""One visitor of a running page who speaks as the page's script does, without a browser; it does not judge what it hears."""

import json
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx


class PageClient:
    """A tab: the events that it can send, its place, and what a running reply says."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, login: tuple[str, str] | None = None
    ) -> None:
        """`headers` go with every request, as those of a proxy do; `login`: name and password."""
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60.0, trust_env=False)
        self.http.event_hooks = {"request": [self._send_cookies]}
        if login:
            self.sign_in(*login)
        config = self.http.get("/config").raise_for_status().json()
        self._components = {each["id"]: each for each in config["components"]}
        self._dependencies = config["dependencies"]
        self.tab = secrets.token_hex(6)
        self.place: Any = {}
        self.shown: dict[str, Any] = {}

    def sign_in(self, name: str, password: str) -> None:
        """Type a name and a password."""
        self.http.post("/login", data={"username": name, "password": password}).raise_for_status()

    def _id(self, element: str) -> int:
        return next(id for id, each in self._components.items() if each["props"].get("elem_id") == element)

    def act(self, element: str, event: str, data: Any = None, **values: Any) -> list[Any]:
        """Send one event of the component `element`; `values` are what components hold, by their elements."""
        answer = self.http.post("/gradio_api/run/predict", json=self.event(element, event, data, **values))
        answer.raise_for_status()
        _, dependency = self._dependency(element, event)
        outputs = {
            id: self._read(id, value) for id, value in zip(dependency["outputs"], answer.json()["data"], strict=True)
        }
        for id, value in outputs.items():
            if self._components[id]["type"] == "browserstate":
                self.place = value
            elif self._components[id]["props"].get("elem_id") == "turns":
                self.shown = value
        return list(outputs.values())

    def event(self, element: str, event: str, data: Any = None, **values: Any) -> dict[str, Any]:
        """The body of such an event, for who sends it by hand."""
        index, dependency = self._dependency(element, event)
        named = {self._id(name): value for name, value in values.items()}
        inputs = [self._value(id, named) for id in dependency["inputs"]]
        target = self._id(element)
        return {"data": inputs, "event_data": data, "fn_index": index, "trigger_id": target, "session_hash": self.tab}

    def _dependency(self, element: str, event: str) -> tuple[int, Any]:
        """The page's function for an event of a component, and its number."""
        target = self._id(element)
        return next(
            (each["id"], each) for each in self._dependencies if [target, event] in [list(t) for t in each["targets"]]
        )

    def _read(self, id: int, value: Any) -> Any:
        """A value of the page's own components comes as a text of JSON."""
        return json.loads(value) if self._components[id]["type"] == "html" and isinstance(value, str) else value

    def _value(self, id: int, named: dict[int, Any]) -> Any:
        if self._components[id]["type"] == "browserstate":
            return self.place
        return named.get(id, self._components[id]["props"].get("value"))

    def say(self, text: str) -> None:
        """Send a message."""
        self.act("box", "submit", box={"text": text, "files": []})

    def reading(self) -> AbstractContextManager[httpx.Response]:
        """The running reply from its beginning, as it comes; several threads may each have one."""
        return self.http.stream("GET", "/magistral/live", headers=self.reading_headers())

    def reading_headers(self) -> dict[str, str]:
        """What asks for it, for who sends requests by hand."""
        return {"X-Generation": self.shown["live"] or "", "Last-Event-ID": "0", "Cookie": self.cookies()}

    def cookies(self) -> str:
        """What it sends of them, for who sends requests by hand."""
        return "; ".join(f"{each.name}={each.value}" for each in self.http.cookies.jar)

    def _send_cookies(self, request: httpx.Request) -> None:
        """Secure ones too: they come through a proxy with TLS, and the way from there to here has none."""
        if cookies := self.cookies():
            request.headers["Cookie"] = cookies

    def follow(self) -> str:
        """Read the running reply to its end, and then the finished turn; the answer as it was streamed."""
        heard = ""
        with self.reading() as lines:
            if lines.status_code == 200:
                for line in lines.iter_lines():
                    if line.startswith("data: "):
                        heard += json.loads(line[len("data: ") :])["answer"]
        self.act("turns", "ended")
        return heard

    def close(self) -> None:
        """Leave."""
        self.http.close()
