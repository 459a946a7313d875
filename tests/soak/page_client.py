"""One visitor of a running page who speaks as the page's script does, without a browser; it does not judge what it hears."""

import json
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx

from magistral_ui.web.request_guard import ACTIONS_PATH


class PageClient:
    """A tab: the actions that it can ask for, its place, and what a running reply says."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, login: tuple[str, str] | None = None
    ) -> None:
        """`headers` go with every request, as those of a proxy do; `login`: name and password."""
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60.0, trust_env=False)
        self.http.event_hooks = {"request": [self._send_cookies]}
        if login:
            self.sign_in(*login)
        self.http.get("/").raise_for_status()
        self.tab = secrets.token_hex(6)
        self.place: Any = {}
        self.shown: dict[str, Any] = {}

    def sign_in(self, name: str, password: str) -> None:
        """Type a name and a password."""
        self.http.post("/login", data={"username": name, "password": password}).raise_for_status()

    def act(self, action: str, data: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Ask for one action of the page; what its answer tells, by parts."""
        answer = self.http.post(ACTIONS_PATH + action, json=self.body(data, **more))
        answer.raise_for_status()
        parts: dict[str, Any] = answer.json()
        self.place = parts.get("place", self.place)
        self.shown = parts.get("turns", self.shown)
        return parts

    def body(self, data: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The body of an action, for who sends it by hand."""
        return {"place": self.place, "data": data or {}, **more}

    def say(self, text: str) -> None:
        """Send a message."""
        self.act("composer/say", message={"text": text})

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
        self.act("turns/ended")
        return heard

    def close(self) -> None:
        """Leave."""
        self.http.close()
