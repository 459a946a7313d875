"""A small Hugging Face Hub on loopback: speaks to the real client, serves folders, and fails when it is told to."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.loopback import Answering, listening

LARGE = 10_000
"""Bytes from which a file is kept as large files are: by its SHA-256, and behind a redirect."""


@dataclass
class Repository:
    """What is served under one name, and how it misbehaves."""

    folder: Path
    commit: str
    token: str | None = None
    """Only who brings it may read."""
    gated: bool = False
    hidden: set[str] = field(default_factory=set)
    """Listed, but not found."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """By file: after how many bytes the line breaks, one number per request."""
    spoiled: set[str] = field(default_factory=set)
    """Served with a wrong byte."""
    ranges: bool = True
    card: dict[str, object] = field(default_factory=dict)
    """The metadata of its README.md."""
    listed: list[dict[str, object]] = field(default_factory=list)
    """More entries of the list of files, for which there are none."""
    sizes: dict[str, int] = field(default_factory=dict)
    """By file: a size that is listed instead of its own."""

    def described(self) -> list[tuple[str, dict[str, object]]]:
        """Its files by name, folders and all, with what `describe` says of each."""
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        named = [(file.relative_to(self.folder).as_posix(), describe(file)) for file in files]
        for name, facts in named:
            if size := self.sizes.get(name):
                facts.update(size=size, lfs={**facts["lfs"], "size": size})  # type: ignore[dict-item]
        return named


@dataclass
class Served:
    """One answered request for content."""

    file: str
    start: int
    sent: int
    authorization: str | None


class Hub:
    """Repositories by name."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.served: list[Served] = []
        self.asked: list[str] = []
        """Paths of all requests."""
        self.url = self.content_url = ""
        """Large content comes from another host, as the Hub's does: the token must not go there."""
        self.step: threading.Event | None = None
        """Where set: content waits for it after half of a file."""

    def add(self, name: str, folder: Path, commit: str = "") -> Repository:
        commit = commit or hashlib.sha1(str(folder).encode()).hexdigest()
        self.repositories[name] = Repository(folder, commit)
        return self.repositories[name]

    def files(self) -> list[str]:
        """Names of all files whose content was asked for, in order."""
        return [each.file for each in self.served]


def describe(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found: dict[str, object] = {"size": len(content), "oid": oid, "etag": oid}
    if len(content) >= LARGE:
        sha = hashlib.sha256(content).hexdigest()
        found |= {"lfs": {"size": len(content), "sha256": sha, "oid": sha, "pointerSize": 134}, "etag": sha}
    return found


class Handler(Answering):
    hub: Hub

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that has read enough closes the connection
            super().handle()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.describe(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self.tree(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(found[1], found[2], found[3])
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self.content(self.hub.repositories[found[1]], found[2])
        else:
            self.refuse(404, None)

    def repository(self, name: str, revision: str) -> Repository | None:
        """The repository, if it may be read; otherwise it is refused as the Hub does it."""
        repository = self.hub.repositories.get(name)
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given == "expired":
            self.refuse(401, None, "Invalid credentials in Authorization header")
        elif repository is None:
            self.refuse(401 if not given else 404, "RepoNotFound")
        elif repository.token and given != repository.token:
            self.refuse(403 if given else 401, "GatedRepo" if repository.gated else "RepoNotFound")
        elif revision not in ("main", repository.commit):
            self.refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def describe(self, name: str, revision: str) -> None:
        if repository := self.repository(name, revision):
            siblings = []
            for name_in, facts in repository.described():
                sibling = {"rfilename": name_in, "size": facts["size"], "blobId": facts["oid"]}
                siblings.append(sibling | ({"lfs": facts["lfs"]} if "lfs" in facts else {}))
            siblings += repository.listed
            self.say(
                {
                    "id": name,
                    "modelId": name,
                    "sha": repository.commit,
                    "siblings": siblings,
                    "cardData": repository.card,
                }
            )

    def tree(self, name: str, revision: str) -> None:
        if repository := self.repository(name, revision):
            entries = []
            for name_in, facts in repository.described():
                facts.pop("etag")
                entries.append({"type": "file", "path": name_in} | facts)
            self.say(entries)

    def resolve(self, name: str, revision: str, file: str) -> None:
        repository = self.repository(name, revision)
        if repository is None:
            return
        path = repository.folder / file
        if not path.is_file() or file in repository.hidden:
            self.refuse(404, "EntryNotFound")
            return
        facts = describe(path)
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{facts["etag"]}"'}
        if "lfs" in facts:
            headers |= {"X-Linked-Size": str(facts["size"]), "X-Linked-ETag": f'"{facts["etag"]}"'}
            headers["Location"] = f"{self.hub.content_url}/cdn/{name}/{file}"
            self.answer(302, b"", headers)
        else:
            self.content(repository, file, headers)

    def content(self, repository: Repository, file: str, headers: dict[str, str] | None = None) -> None:
        body = (repository.folder / file).read_bytes()
        if file in repository.spoiled:
            body = body[:-1] + bytes([body[-1] ^ 1])
        total, start, asked = len(body), 0, False
        headers = dict(headers or {})
        if repository.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            start, asked = int(found[1]), True
            body = body[: int(found[2]) + 1] if found[2] else body
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{total}"
        body = body[start:]
        self.send_response(206 if asked else 200)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = repository.cuts.get(file)
        cut = cuts.pop(0) if cuts else None
        if self.hub.step:
            self.wfile.write(body[: total // 2])
            body = body[total // 2 :]
            self.hub.step.wait(60)
        self.hub.served.append(
            Served(file, start, len(body) if cut is None else cut, self.headers.get("Authorization"))
        )
        try:
            self.wfile.write(body if cut is None else body[:cut])
            self.wfile.flush()
        except ConnectionError:  # who asked has read enough
            self.close_connection = True
        if cut is not None:
            self.close_connection = True

    def refuse(self, status: int, code: str | None, message: str | None = None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        self.answer(status, b"{}", headers | ({"X-Error-Message": message} if message else {}))


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that runs meanwhile."""
    hub = Hub()
    with listening(Handler, hub=hub) as port:
        hub.url, hub.content_url = (f"http://{host}:{port}" for host in ("127.0.0.1", "localhost"))
        yield hub
