"""A page with a password, behind a proxy: nobody else gets anything, guessing is slow, and a login ends."""

import base64
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from magistral_ui.json_log import start_json_log
from magistral_ui.web.exposure import Exposure
from tests.security.conftest import Served, serving

PUBLIC = {"Host": "chat.example.org", "X-Forwarded-Proto": "https"}
addresses = iter(f"93.184.{block}.{last}" for block in range(200) for last in range(1, 250))


@pytest.fixture
def stranger(locked: Served) -> Iterator[httpx.Client]:
    """Somebody at an address of their own."""
    headers = {**PUBLIC, "X-Forwarded-For": next(addresses)}
    with httpx.Client(base_url=locked.url, headers=headers, trust_env=False, timeout=60) as client:
        yield client


def enter(client: httpx.Client, password: str, **headers: str) -> httpx.Response:
    return client.post("/login", data={"username": "", "password": password}, headers=headers)


@pytest.mark.parametrize(
    "path",
    [
        "/config",
        "/gradio_api/info",
        "/gradio_api/queue/data?session_hash=abc",
        "/gradio_api/file=/etc/passwd",
        "/magistral/live",
        "/magistral/model",
        "/magistral/main.js",
        "/magistral/export",
        "/gradio_api/heartbeat/abc",
        "/assets/x.js",
        "/mcp",
    ],
)
def test_nothing_is_there_without_the_password(stranger: httpx.Client, path: str) -> None:
    assert stranger.get(path).status_code == 401
    for other in (
        "/magistral/act/composer/say",
        "/gradio_api/queue/join",
        "/gradio_api/upload",
        "/mcp",
        "/magistral/import",
    ):
        assert stranger.post(other, json={}).status_code == 401
    page = stranger.get("/")
    assert 'type="password"' in page.text
    assert "gradio_config" not in page.text


def test_the_right_one_opens_and_signing_out_closes(stranger: httpx.Client) -> None:
    answer = enter(stranger, "right horse")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=604800"):
        assert part in cookie
    assert "Domain" not in cookie
    kept = {"Cookie": cookie.partition(";")[0]}
    assert stranger.get("/config", headers=kept).status_code == 200
    again = stranger.get("/login", headers=kept)  # as a browser restores a tab in which the first password was wrong
    assert (again.status_code, again.headers["location"]) == (303, "./")
    stranger.post("/logout", headers=kept)
    assert stranger.get("/config", headers=kept).status_code == 401


def test_a_login_that_was_set_by_somebody_else_is_worth_nothing(stranger: httpx.Client) -> None:
    planted = {"Cookie": "magistral-ui-login=" + "a" * 43}
    answer = enter(stranger, "right horse", **planted)
    assert "a" * 43 not in answer.headers["set-cookie"]
    assert stranger.get("/config", headers=planted).status_code == 401


@pytest.mark.parametrize(
    "password", ["", "wrong", "right hors", "right horse2", "RIGHT HORSE", "x" * 7_000, "\x00", "%00"]
)
def test_a_wrong_one_is_told_so_and_nothing_else(stranger: httpx.Client, password: str) -> None:
    answer = enter(stranger, password, Accept="text/html")
    assert answer.status_code == 401
    assert "set-cookie" not in {name for name in answer.headers if "login" in answer.headers[name]}
    assert 'role="alert"' in answer.text


def test_guessing_is_slowed_down_also_for_the_right_one_and_for_forged_addresses(stranger: httpx.Client) -> None:
    for _ in range(5):
        assert enter(stranger, "wrong").status_code == 401
    answer = enter(stranger, "right horse")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 30
    # The proxy writes the true address last; what comes before it is whatever the visitor wrote.
    true = stranger.headers["x-forwarded-for"]
    assert enter(stranger, "wrong", **{"X-Forwarded-For": f"1.2.3.4, {true}"}).status_code == 429
    assert enter(stranger, "wrong", **{"X-Forwarded-For": next(addresses)}).status_code == 401


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same with names, for people who are attacked one by one."""
    exposure = Exposure("proxy", url="https://chat.example.org")
    people = {"ann": "right horse of ann", "bob": "right horse of bob"}
    with serving(tmp_path_factory.mktemp("named"), exposure=exposure, passwords=people) as served:
        yield served


@pytest.fixture
def anybody(named: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=named.url, headers=PUBLIC, trust_env=False, timeout=60) as client:
        yield client


def try_as(client: httpx.Client, name: str, password: str, address: str, **headers: str) -> int:
    """What becomes of one try from that address, by a browser without cookies."""
    client.cookies.clear()
    told = {"X-Forwarded-For": address, **headers}
    return client.post("/login", data={"username": name, "password": password}, headers=told).status_code


def flood(client: httpx.Client, name: str, count: int) -> None:
    """So many wrong ones, each from an address of its own; their answers are not waited for one by one."""
    with ThreadPoolExecutor(16) as pool:
        found = list(
            pool.map(lambda address: try_as(client, name, "wrong", address), itertools.islice(addresses, count))
        )
    assert set(found) == {401}


def test_wrong_ones_from_everywhere_keep_nobody_out(anybody: httpx.Client) -> None:
    """252 were enough to keep everybody out, when there was one bound for all."""
    flood(anybody, "ann", 300)
    for name in ("ann", "bob"):
        assert try_as(anybody, name, f"right horse of {name}", next(addresses)) == 200


def test_an_address_that_was_in_before_is_not_slowed_by_others(anybody: httpx.Client) -> None:
    home, other = next(addresses), next(addresses)
    assert try_as(anybody, "ann", "right horse of ann", home) == 200
    flood(anybody, "ann", 60)
    assert try_as(anybody, "ann", "mistyped", home) == 401
    assert try_as(anybody, "ann", "right horse of ann", home) == 200
    assert try_as(anybody, "ann", "guessed", other) == 401
    assert try_as(anybody, "ann", "guessed again", other) == 429, "one try from each, once a name is attacked"


def test_a_browser_that_was_in_before_is_not_slowed_by_its_neighbours(anybody: httpx.Client) -> None:
    office = next(addresses)
    hers = {"Cookie": "__Host-magistral-ui-visit=" + "a" * 43}
    assert try_as(anybody, "ann", "right horse of ann", office, **hers) == 200
    assert [try_as(anybody, "ann", "wrong", office) for _ in range(6)][-1] == 429
    assert try_as(anybody, "ann", "right horse of ann", office) == 429
    assert try_as(anybody, "ann", "right horse of ann", office, **hers) == 200


def test_somebody_with_a_password_guesses_another_s_no_faster(anybody: httpx.Client) -> None:
    address = next(addresses)
    found = []
    for _ in range(6):
        assert try_as(anybody, "bob", "right horse of bob", address) == 200
        found.append(try_as(anybody, "ann", "wrong", address))
    assert (found[0], found[-1]) == (401, 429)


def test_names_that_nobody_has_are_slowed_like_others(anybody: httpx.Client) -> None:
    """Else the slowness would tell which names there are."""
    flood(anybody, "nobody", 40)
    address = next(addresses)
    assert [try_as(anybody, "nobody", "wrong", address) for _ in range(2)] == [401, 429]


def test_an_ipv6_network_is_one_address(anybody: httpx.Client) -> None:
    found = [try_as(anybody, "bob", "wrong", f"2001:db8:5:6::{number:x}") for number in range(7)]
    assert found[-1] == 429
    assert try_as(anybody, "bob", "right horse of bob", "2001:db8:5:7::1") == 200


def test_programs_and_people_spend_the_same_tries(anybody: httpx.Client) -> None:
    address = {"X-Forwarded-For": next(addresses)}
    for sent in (basic("ann:wrong"), basic("bob:wrong"), "Bearer wrong"):
        assert anybody.post("/mcp", json=HELLO, headers={"Authorization": sent, **address}).status_code == 401
    for _ in range(2):
        assert anybody.post("/login", data={"username": "x", "password": "wrong"}, headers=address).status_code == 401
    right = basic("ann:right horse of ann")
    assert anybody.post("/mcp", json=HELLO, headers={"Authorization": right, **address}).status_code == 429


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
}


def knock(client: httpx.Client, sent: str, path: str = "/mcp") -> httpx.Response:
    """A program's first request, with its password."""
    headers = {"Authorization": sent, "Accept": "application/json, text/event-stream"}
    return client.post(path, json=HELLO, headers=headers)


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


def test_a_program_sends_the_password_along(stranger: httpx.Client) -> None:
    for sent in (basic(":right horse"), basic("anybody:right horse"), "bearer right horse"):
        answer = knock(stranger, sent)
        assert answer.status_code == 200, answer.text
        assert "magistral" in answer.text.lower()
    assert knock(stranger, basic(":right horse"), "/magistral/act/composer/say").status_code == 401
    assert stranger.get("/config", headers={"Authorization": basic(":right horse")}).status_code == 401
    assert "www-authenticate" not in stranger.get("/mcp", headers={"Accept": "text/html"}).headers, (
        "a browser would ask for it, and send it from anywhere"
    )


@pytest.mark.parametrize(
    "sent", [basic(":wrong"), "Bearer wrong", "Bearer", "Basic !!", "Basic /w==", basic("none"), "x"]
)
def test_a_program_without_the_password_stays_outside(stranger: httpx.Client, sent: str) -> None:
    assert knock(stranger, sent).status_code == 401


def test_a_program_cannot_guess_either(stranger: httpx.Client) -> None:
    assert [knock(stranger, f"Bearer {n}").status_code for n in range(6)] == [401] * 5 + [429]
    assert knock(stranger, "Bearer right horse").status_code == 429
    assert enter(stranger, "right horse").status_code == 429


def test_bodies_that_are_no_form_are_refused(stranger: httpx.Client) -> None:
    for body in (b"x" * 10_000, b"&" * 8_000, b"\xff\xfe", b"password=" + b"%" * 4_000):
        assert stranger.post("/login", content=body).status_code in (400, 401)


def test_the_page_leads_nowhere_else(stranger: httpx.Client) -> None:
    answer = stranger.post(
        "/login?next=https://evil.example",
        data={"username": "", "password": "right horse", "next": "//evil.example"},
        headers={"Accept": "text/html"},
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert answer.headers["strict-transport-security"].startswith("max-age=")


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = "multipart/form-data; boundary=----formdata-undici-0{digits}"


def parts(digits: str, *fields: tuple[str, str], more: str = "") -> tuple[bytes, dict[str, str]]:
    """A form as @gradio/client 2.7 sends it from Node.js: a FormData of undici's."""
    lines = [
        f'------formdata-undici-0{digits}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
        for name, value in fields
    ]
    return ("".join(lines) + f"------formdata-undici-0{digits}--\r\n").encode(), {
        "Content-Type": MULTIPART.format(digits=digits),
        "Accept": "*/*",
        "Sec-Fetch-Mode": "cors",
        "User-Agent": "node",
    }


def test_a_program_in_javascript_comes_in(stranger: httpx.Client) -> None:
    body, headers = parts("64137289905", ("username", "anybody"), ("password", "right horse"))
    answer = stranger.post("/login", content=body, headers=headers)
    assert answer.json() == {"success": True}
    kept = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
    assert stranger.get("/config", headers=kept).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        parts("1", ("username", "a"), ("password", "wrong")),
        parts("1", ("password", "right horse"), more='; filename="a.txt"'),
        parts("1", *[("x", "y")] * 9, ("password", "right horse")),
        (parts("1", ("password", "right horse"))[0], {"Content-Type": "multipart/form-data"}),
        (b"password=right+horse", {"Content-Type": MULTIPART.format(digits="1")}),
        (
            b"------formdata-undici-01\r\nContent-Disposition: form-data\r\n\r\nx",
            {"Content-Type": MULTIPART.format(digits="1")},
        ),
        parts("1", ("username", "a" * 9_000), ("password", "right horse")),
        parts("1", ("password", "wrong"), ("password", "right horse")),
        parts("1", ("password", "right horse"), ("password", "")),
        (b"username=&password=right+horse&password=right+horse", FORM),
        (b"username=ann&password=right+horse&username=", FORM),
    ],
)
def test_what_is_no_form_lets_nobody_in(stranger: httpx.Client, sent: tuple[bytes, dict[str, str]]) -> None:
    answer = stranger.post("/login", content=sent[0], headers=sent[1])
    assert answer.status_code in (400, 401)
    assert "set-cookie" not in answer.headers or "magistral-ui-login" not in answer.headers["set-cookie"]


def test_a_flood_of_tries_does_not_fill_the_log(anybody: httpx.Client) -> None:
    lines = io.StringIO()
    end = start_json_log(lines)
    try:
        flood(anybody, "nobody", 200)
        for _ in range(100):
            assert try_as(anybody, "bob", "right horse of bob", "192.0.2.77") == 200
    finally:
        end()
    told = Counter(json.loads(line)["event"] for line in lines.getvalue().splitlines())
    # Half a minute's at once, and one more each second: more would take as long as they are let.
    assert 0 < told["login_failed"] < 200
    assert 0 < told["login"] < 100


def test_a_program_is_told_how_to_come_in(stranger: httpx.Client) -> None:
    for path in ("/gradio_api/call/chat", "/gradio_api/info", "/config"):
        assert "/login" in stranger.get(path).json()["detail"]
        assert "www-authenticate" not in stranger.get(path).headers, "a browser would ask its user"
    assert "Reload" in stranger.post("/magistral/act/composer/say", json={}).json()["detail"], "this is the page"


@pytest.mark.parametrize(("people", "scheme"), [({"": "right horse"}, "Bearer"), ({"ann": "right horse"}, "Basic")])
def test_an_mcp_client_is_told_what_to_send(people: dict[str, str], scheme: str, tmp_path: Path) -> None:
    with (
        serving(tmp_path, passwords=people) as served,
        httpx.Client(base_url=served.url, trust_env=False, timeout=60) as http,
    ):
        refused = [http.post("/mcp", json={}), knock(http, "Bearer wrong"), http.get("/mcp")]
        for answer in refused:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith(f'{scheme} realm="')
        assert "Authorization" in refused[0].json()["error"]
        assert "Reload" not in refused[0].text
        browsers = http.get("/mcp", headers={"Accept": "text/html,*/*"})
        assert "www-authenticate" not in browsers.headers, (
            "a browser would ask its user, and keep the answer for every site"
        )
