"""The side of the Hub on loopback that takes Spaces: speaks to the real client, keeps what it is sent, and can refuse."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.loopback import Answering, listening

TOKEN = "hf_" + "w" * 4
OWNER = "someone"


@dataclass
class Space:
    """One repository, with what its settings hold."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"", "left-over.py": b"old"})
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    asked: list[str] = field(default_factory=list)
    """What was done, in order."""


@dataclass
class SpacesHub:
    """All Spaces by name."""

    url: str = ""
    spaces: dict[str, Space] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    """What the commit is answered with."""


class Handler(Answering):
    hub: SpacesHub

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_PUT(self) -> None:
        oid = self.path.rpartition("/")[2]
        content = self.body()
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.large[oid] = content
        self.say({})

    def do_DELETE(self) -> None:
        self.say({}, 405)

    def do_GET(self) -> None:
        self.act("GET", b"")

    def do_POST(self) -> None:
        self.act("POST", self.body())

    def act(self, method: str, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(body)["content"])
            self.say({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/spaces/([^/]+/[^/]+)/(\w+)(?:/main)?", path):
            self.about(self.hub.spaces[found[1]], method, found[2], body)
        elif found := re.fullmatch(r"/spaces/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.batch(json.loads(body))
        elif (found := re.fullmatch(r"/api/spaces/([^/]+/[^/]+)", path)) and found[1] in self.hub.spaces:
            self.say({"id": found[1], "sha": "0" * 40, "siblings": []})
        else:
            self.say({"error": f"nothing at {path}"}, 404)

    def create(self, wish: dict[str, Any]) -> None:
        owner = wish.get("organization") or OWNER
        name = f"{owner}/{wish['name']}"
        if owner != OWNER:
            self.say({"error": f"You don't have the rights to create a space under the namespace {owner}"}, 403)
            return
        assert wish["type"] == "space"
        assert wish["sdk"] == "gradio"
        answer = {"url": f"{self.hub.url}/spaces/{name}", "name": name}
        if name in self.hub.spaces:
            self.say(answer | {"error": "You already created this space repo"}, 409)
            return
        self.hub.spaces[name] = Space(wish.get("visibility") == "private" or bool(wish.get("private")))
        self.say(answer)

    def about(self, space: Space, method: str, what: str, body: bytes) -> None:
        space.asked.append(what)
        if what == "runtime":
            self.say({"stage": "NO_APP_FILE", "hardware": {"current": None, "requested": space.hardware}})
        elif what == "tree":
            self.say([{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in space.files])
        elif what in ("secrets", "variables"):
            sent = json.loads(body)
            getattr(space, what)[sent["key"]] = sent["value"]
            self.say({})
        elif what == "hardware":
            space.hardware = json.loads(body)["flavor"]
            self.say({"stage": "BUILDING", "hardware": {"current": None, "requested": space.hardware}})
        elif what == "preupload":
            self.preupload(json.loads(body))
        elif self.hub.refusal:
            self.say({"error": self.hub.refusal[1]}, self.hub.refusal[0])
        else:
            self.commit(space, body)

    def preupload(self, wish: dict[str, Any]) -> None:
        """Binary files are large ones, as the Hub has it."""
        modes = []
        for file in wish["files"]:
            text = b"\0" not in base64.b64decode(file["sample"])
            modes.append({"path": file["path"], "uploadMode": "regular" if text else "lfs", "shouldIgnore": False})
        self.say({"files": modes})

    def batch(self, wish: dict[str, Any]) -> None:
        objects = [
            each | {"actions": {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}} for each in wish["objects"]
        ]
        self.say({"transfer": "basic", "objects": objects})

    def commit(self, space: Space, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                space.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                space.files[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedEntry" or entry["key"] == "deletedFile":
                del space.files[value["path"]]
        self.say({"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.hub.url}/spaces/x/y/commit/{'1' * 40}"})


@contextmanager
def serving() -> Iterator[SpacesHub]:
    """A hub that runs meanwhile."""
    hub = SpacesHub()
    with listening(Handler, hub=hub) as port:
        hub.url = f"http://127.0.0.1:{port}"
        yield hub
