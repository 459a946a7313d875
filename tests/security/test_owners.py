"""Names: what somebody said is theirs in every browser, and nobody else's in the same one; signing out ends what still comes."""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral_ui.web import login, login_watch, passwords
from magistral_ui.web.exposure import Exposure
from tests.security.conftest import ROOMY, Browser, Served, serving

PEOPLE = {"Alice": "right horse", "Bob": "left zebra", "José": "third camel"}
WAIT = 60.0
"""Seconds for what takes none but on a busy machine."""


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page for people with names."""
    with serving(tmp_path_factory.mktemp("named"), passwords=PEOPLE, limits=replace(ROOMY, replies=100)) as served:
        yield served


def enter(browser: Browser, name: str, password: str = "") -> Browser:
    """Sign in, and open the page with whatever this browser has kept."""
    form = {"username": name, "password": password or PEOPLE[name]}
    assert browser.http.post("/login", data=form).status_code == 200
    return arrive(browser)


def arrive(browser: Browser) -> Browser:
    browser.http.get("/", headers={"Accept": "text/html"})
    browser.session += "x"  # a page has a new one each time it is loaded
    browser.place = browser.act("turns/attach").json()["place"]
    return browser


def anew(browser: Browser) -> Browser:
    """Begin another conversation."""
    browser.place = browser.act("turns/new_chat").json()["place"]
    return browser


def leave(browser: Browser) -> httpx.Response:
    return browser.http.post("/logout")


def happened(browser: Browser, name: str, data: dict[str, Any]) -> Any:
    """An event of the list."""
    return browser.act(f"history/{name}", data)


def titles(browser: Browser) -> list[str]:
    listed = happened(browser, "refresh", {"query": ""}).json()["history"]
    return sorted(entry["title"] for entry in listed["entries"])


def shown(browser: Browser) -> str:
    """All that the page is told when it is opened."""
    return browser.act("turns/attach").text


def test_bob_finds_nothing_of_alice_in_the_same_browser(named: Served) -> None:
    browser = named.browser()
    enter(browser, "Alice").say("the secret of alice")
    place, session = dict(browser.place), browser.session
    uploaded = browser.upload(b"picture").json()[0]
    called = call(browser)[0]
    ticket = happened(browser, "save", {"format": "json", "query": ""}).json()["history"]["ticket"]["token"]
    assert "visitor" not in place, "there is no secret that could outlast the login"
    leave(browser)
    enter(browser, "Bob")
    assert titles(browser) == []
    assert "secret of alice" not in shown(browser)
    browser.place = place  # what the browser's storage had
    assert "secret of alice" not in shown(browser)
    opened = happened(browser, "open", {"id": place["conversation"], "query": ""})
    assert "secret of alice" not in opened.text
    for wanted in ("remove", "rename", "pin", "restore"):
        happened(browser, wanted, {"id": place["conversation"], "title": "mine", "pinned": True, "query": ""})
    assert browser.http.get(f"/gradio_api/file={uploaded}").status_code == 404
    assert browser.http.get(called).status_code == 404
    for path in ("queue/data?session_hash=", "heartbeat/"):  # where a plain call is its own session
        with browser.http.stream("GET", f"/gradio_api/{path}{called.rpartition('/')[2]}") as answer:
            assert answer.status_code == 404
    assert browser.http.get("/magistral/export", headers={"X-Ticket": ticket}).status_code == 404
    assert browser.http.get(f"/gradio_api/queue/data?session_hash={session}").status_code == 404
    happened(browser, "forget", {"query": ""})
    leave(browser)
    browser.place = {}
    enter(browser, "Alice")
    assert titles(browser) == ["the secret of alice"]


def test_a_person_has_what_they_said_in_every_browser(named: Served) -> None:
    first, second = named.browser(), named.browser()
    enter(first, "José").say("at home")
    anew(enter(second, "jose\u0301", PEOPLE["José"])).say("at work")
    assert titles(first) == titles(second) == ["at home", "at work"]
    third = named.browser()
    enter(third, "  JOSÉ ", PEOPLE["José"])
    assert titles(third) == ["at home", "at work"]
    assert "you said at work" in shown(third), "who names none gets the latest"
    happened(third, "forget", {"query": ""})
    assert titles(first) == titles(second) == []
    assert "you said" not in shown(first)
    arrive(first).say("again")
    assert titles(arrive(second)) == ["again"]


def test_one_person_is_counted_once_in_many_browsers(tmp_path: Path) -> None:
    with serving(tmp_path, passwords=PEOPLE, limits=replace(ROOMY, replies=2)) as served:
        told = [anew(enter(served.browser(), "Alice")).say("wait") for _ in range(3)]
        assert [bool(each["alert"]) for each in told] == [False, False, True]
        assert told[2]["alert"]["key"] == "too_many_replies"
        by_name = served.browser(Authorization="Basic " + base64.b64encode(b"ALICE:right horse").decode())
        asked = ask_by_mcp(by_name)
        assert "2" in asked.text
        assert '"isError":true' in asked.text.replace(" ", "")
        assert not enter(served.browser(), "Bob").say("hello")["alert"]


def ask_by_mcp(browser: Browser) -> httpx.Response:
    headers = {"Accept": "application/json, text/event-stream"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
    begun = browser.http.post("/mcp", json=rpc("initialize", hello), headers=headers, timeout=60)
    headers["mcp-session-id"] = begun.headers["mcp-session-id"]
    browser.http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
    asked = {"name": "ask_magistral", "arguments": {"question": "hello"}}
    return browser.http.post("/mcp", json=rpc("tools/call", asked), headers=headers, timeout=60)


def rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def test_what_was_said_before_there_were_names_goes_to_whom_first_claims_it(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        browser = served.browser().open()
        browser.say("before names")
        place = dict(browser.place)
        assert titles(browser) == ["before names"]
    with serving(tmp_path, passwords=PEOPLE) as served:
        other = enter(served.browser(), "Bob")
        assert titles(other) == [], "another browser proves nothing"
        browser = served.browser()
        browser.place = dict(place)
        enter(browser, "Alice")
        assert titles(browser) == ["before names"]
        assert "visitor" not in browser.place
        leave(browser)
        browser.place = dict(place)
        enter(browser, "Bob")
        assert titles(browser) == []
        assert "before names" not in shown(browser)
    with serving(tmp_path) as served:
        browser = served.browser()
        browser.place = dict(place)
        arrive(browser)
        assert titles(browser) == [], "what a name has claimed is no browser's any more"
        assert browser.place["visitor"] != place["visitor"]
    without_alice = {name: word for name, word in PEOPLE.items() if name != "Alice"}
    with serving(tmp_path, passwords=without_alice) as served:
        assert titles(enter(served.browser(), "Bob")) == []
    with serving(tmp_path, passwords=PEOPLE) as served:
        assert titles(enter(served.browser(), "alice", PEOPLE["Alice"])) == ["before names"], "nothing was lost"


def test_with_one_password_for_all_the_browser_is_the_owner(tmp_path: Path) -> None:
    with serving(tmp_path, passwords={"": "right horse"}) as served:
        browser = served.browser()
        enter(browser, "", "right horse").say("mine")
        assert browser.place["visitor"]
        left = leave(browser)
        assert "storage" not in left.headers["clear-site-data"], "it would lose the way back"
        assert titles(enter(browser, "", "right horse")) == ["mine"]
        assert titles(enter(served.browser(), "", "right horse")) == []


def test_signing_out_clears_the_browser(named: Served) -> None:
    browser = enter(named.browser(), "Alice")
    assert browser.http.get("/magistral/model").headers["cache-control"] == "no-store"
    assert browser.http.get("/").headers["cache-control"] == "no-store"
    tag = browser.http.get("/").text.split('data-login="')[1].partition('"')[0]
    left = leave(browser)
    assert left.headers["clear-site-data"] == '"cache", "storage"'
    enter(browser, "Bob")
    assert f'data-login="{tag}"' not in browser.http.get("/").text


def test_below_a_path_the_storage_of_its_neighbours_stays(tmp_path: Path) -> None:
    exposure = Exposure("proxy", url="https://example.org/ai")
    with serving(tmp_path, passwords=PEOPLE, exposure=exposure) as served:
        browser = served.browser(Host="example.org", **{"X-Forwarded-Proto": "https"})
        answer = browser.http.post("/ai/login", data={"username": "Alice", "password": PEOPLE["Alice"]})
        kept = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        left = browser.http.post("/ai/logout", headers=kept)
        assert left.headers["clear-site-data"] == '"cache"'


@contextmanager
def streaming(browser: Browser, path: str, **options: Any) -> Iterator[tuple[int, threading.Event]]:
    """A stream that is read in a thread of its own; the event tells that it has ended."""
    began, ended, status = threading.Event(), threading.Event(), [0]

    def read() -> None:
        try:
            with browser.http.stream("GET", path, timeout=60, **options) as answer:
                status[0] = answer.status_code
                began.set()
                for _ in answer.iter_raw():
                    pass
        except httpx.HTTPError:
            pass
        finally:
            began.set()
            ended.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert began.wait(WAIT)
    try:
        yield status[0], ended
    finally:
        thread.join(WAIT)
        assert not thread.is_alive(), "the stream outlives the test"


def live(browser: Browser) -> tuple[str, dict[str, str]]:
    return "/magistral/live", {"X-Generation": anew(browser).say("wait")["live"]}


def heartbeat(browser: Browser) -> tuple[str, dict[str, str]]:
    return f"/gradio_api/heartbeat/{browser.session}", {}


def queue(browser: Browser) -> tuple[str, dict[str, str]]:
    asked = {"data": ["wait"], "fn_index": browser.served.numbers["chat"], "session_hash": browser.session}
    assert browser.http.post("/gradio_api/queue/join", json=asked).status_code == 200
    return f"/gradio_api/queue/data?session_hash={browser.session}", {}


def call(browser: Browser) -> tuple[str, dict[str, str]]:
    begun = browser.http.post("/gradio_api/call/chat", json={"data": ["wait"]}).json()["event_id"]
    return f"/gradio_api/call/chat/{begun}", {}


ENDS: dict[str, Callable[[Browser], object]] = {
    "signing out": leave,
    "another login in the same browser": lambda browser: enter(browser, "Bob"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("opened", [live, heartbeat, queue, call])
def test_streams_end_with_their_login_and_no_others(named: Served, opened: Any, end: Any) -> None:
    mine, elsewhere = enter(named.browser(), "Alice"), enter(named.browser(), "Alice")
    path, headers = opened(mine)
    with (
        streaming(elsewhere, heartbeat(elsewhere)[0]) as (_, ended_there),
        streaming(mine, path, headers=headers) as (status, ended),
    ):
        assert status == 200
        assert not ended.is_set()
        end(mine)
        assert ended.wait(WAIT)
        assert not ended_there.is_set(), "another browser has a login of its own"
        leave(elsewhere)
        assert ended_there.wait(WAIT)


@pytest.mark.parametrize("limits", [{"login_idle_hours": 1}, {"login_hours": 1}])
def test_streams_end_when_their_login_expires(
    limits: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(
        login, "LoginSessions", lambda idle, hours: passwords.LoginSessions(idle, hours, lambda: now[0])
    )
    monkeypatch.setattr(login_watch, "CHECK_INTERVAL", 0.1)
    with serving(tmp_path, passwords=PEOPLE, limits=replace(ROOMY, **limits)) as served:
        browser = enter(served.browser(), "Alice")
        now[0] = 3_500.0
        with streaming(browser, f"/gradio_api/heartbeat/{browser.session}") as (status, ended):
            assert status == 200
            now[0] = 3_500.0 + 3_599.0 if "login_idle_hours" in limits else 3_599.0
            assert not ended.wait(0.5), "it holds"
            now[0] += 2.0
            assert ended.wait(WAIT)
        assert browser.http.get("/config").status_code == 401


def test_a_login_that_made_room_for_others_takes_its_streams_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "MAX_LOGINS", 1)
    monkeypatch.setattr(login_watch, "CHECK_INTERVAL", 0.2)
    with serving(tmp_path, passwords=PEOPLE) as served:
        browser = enter(served.browser(), "Alice")
        with streaming(browser, f"/gradio_api/heartbeat/{browser.session}") as (_, ended):
            enter(served.browser(), "Bob")
            assert ended.wait(WAIT)


def test_a_file_on_its_way_ends_with_the_login(named: Served) -> None:
    browser = enter(named.browser(), "Alice")
    sending, over = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        sending.set()
        assert over.wait(WAIT)
        yield b"more\r\n--x--\r\n"

    answers: list[httpx.Response] = []

    def send() -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        with httpx.Client(base_url=named.url, cookies=browser.http.cookies, trust_env=False, timeout=60) as http:
            answers.append(http.post("/gradio_api/upload", content=body(), headers=headers))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert sending.wait(WAIT)
    leave(browser)
    over.set()
    thread.join(WAIT)
    assert [answer.status_code for answer in answers] == [401]


def test_a_name_of_a_thousand_characters_is_one_like_others(tmp_path: Path) -> None:
    long, longer = "ñ" * 512, "ñ" * 511 + "m"
    with serving(tmp_path, passwords={long: "right horse", longer: "left zebra"}) as served:
        enter(served.browser(), long, "right horse").say("of the first")
        assert titles(enter(served.browser(), longer, "left zebra")) == []
        assert titles(enter(served.browser(), "Ñ" * 512, "right horse")) == ["of the first"]
