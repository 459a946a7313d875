"""One visitor of a running page who speaks as the page's script does, without a browser; it does not judge what it hears."""

import json
import secrets
from contextlib import AbstractContextManager
from typing import Any

import httpx


class Door:
    """A tab: the events that it can send, its place, and what a running reply says."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60.0, trust_env=False)
        config = self._http.get("/config").json()
        self._components = {each["id"]: each for each in config["components"]}
        self._dependencies = config["dependencies"]
        self._tab = secrets.token_hex(6)
        self.place: Any = {}
        self.shown: dict[str, Any] = {}

    def _id(self, element: str) -> int:
        return next(id for id, each in self._components.items() if each["props"].get("elem_id") == element)

    def act(self, element: str, event: str, data: Any = None, **values: Any) -> list[Any]:
        """Send one event of the component `element`; `values` are what components hold, by their elements."""
        target = self._id(element)
        index, dependency = next(
            (each["id"], each) for each in self._dependencies if [target, event] in [list(t) for t in each["targets"]]
        )
        named = {self._id(name): value for name, value in values.items()}
        inputs = [self._value(id, named) for id in dependency["inputs"]]
        body = {"data": inputs, "event_data": data, "fn_index": index, "trigger_id": target, "session_hash": self._tab}
        answer = self._http.post("/gradio_api/run/predict", json=body)
        answer.raise_for_status()
        outputs = {
            id: self._read(id, value) for id, value in zip(dependency["outputs"], answer.json()["data"], strict=True)
        }
        for id, value in outputs.items():
            if self._components[id]["type"] == "browserstate":
                self.place = value
            elif self._components[id]["props"].get("elem_id") == "turns":
                self.shown = value
        return list(outputs.values())

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
        return self._http.stream("GET", "/magistral/live", headers=self.reading_headers())

    def reading_headers(self) -> dict[str, str]:
        """What asks for it, for who sends requests by hand."""
        cookie = "; ".join(f"{each.name}={each.value}" for each in self._http.cookies.jar)
        return {"X-Generation": self.shown["live"] or "", "Last-Event-ID": "0", "Cookie": cookie}

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
        self._http.close()
