"""Cookies that a neighbour at the same domain cannot put in ours' place, and what becomes of those that try."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from magistral_ui.web.client_address import PREFIX_KEY, cookie_name, cookie_value, outdated, read_cookie, read_cookies
from magistral_ui.web.exposure import Exposure
from tests.security.conftest import Served, serving

PUBLIC = {"Host": "chat.example.org", "X-Forwarded-For": "93.184.216.34"}
MINE, THEIRS = "m" * 43, "t" * 43
SECURE, BELOW, PLAIN = {"scheme": "https"}, {"scheme": "https", PREFIX_KEY: "/ai"}, {"scheme": "http"}


@pytest.fixture
def public(locked: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=locked.url, headers=PUBLIC, trust_env=False, timeout=60) as client:
        yield client


def enter(client: httpx.Client) -> httpx.Response:
    return client.post("login", data={"username": "", "password": "right horse"})


def login_of(client: httpx.Client) -> str:
    """The cookie of a new login in a browser that has none: one that had would sign its old one out."""
    client.cookies.clear()
    return set_by(enter(client), "magistral-ui-login").partition(";")[0]


def set_by(answer: httpx.Response, name: str) -> str:
    """The one line that sets the cookie."""
    (found,) = [line for line in answer.headers.get_list("set-cookie") if line.startswith(f"{name}=")]
    return str(found)


def test_names_are_as_strict_as_the_address_allows() -> None:
    assert cookie_name("a", SECURE) == "__Host-a"
    assert cookie_name("a", BELOW) == "__Secure-a"
    assert cookie_name("a", PLAIN) == "a"
    assert cookie_value("a", "b", SECURE) == "__Host-a=b; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert cookie_value("a", "b", BELOW, age=5) == "__Secure-a=b; Path=/ai/; HttpOnly; SameSite=Lax; Secure; Max-Age=5"
    assert cookie_value("a", "b", PLAIN) == "a=b; Path=/; HttpOnly; SameSite=Lax"
    assert cookie_value("a", "b", SECURE, framed=True).endswith("SameSite=None; Secure; Partitioned")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"a={MINE}", [MINE]),
        (f"a={MINE}; a={MINE}", [MINE]),
        (f"a={THEIRS}; a={MINE}", [THEIRS, MINE]),
        (f"a={THEIRS}; A={MINE}; b={MINE}", [THEIRS]),
        (f"a=x; a={MINE}; a=", [MINE]),
        (f"a ={MINE}", [MINE]),
        ("; ".join(f"a={n:043}" for n in range(500)), [f"{n:043}" for n in range(8)]),
    ],
)
def test_of_two_that_could_be_ours_none_is(line: str, found: list[str]) -> None:
    headers = Headers({"cookie": line})
    assert read_cookies(headers, "a") == found
    assert read_cookie(headers, "a") == (found[0] if len(found) == 1 else "")


@pytest.mark.parametrize("blank", ["\xa0", "\x85", "\x1f", "\x0b"])
def test_no_other_blank_makes_a_neighbours_cookie_ours(blank: str) -> None:
    """A browser guards a name that begins with `__Host-`, and not one before which such a blank stands."""
    line = f"{blank}__Host-x={'a' * 43}; __Host-x{blank}={'b' * 43}".encode("latin-1")
    assert read_cookies(Headers(raw=[(b"cookie", line)]), "__Host-x") == []


def test_a_cookie_of_the_old_name_is_taken_away() -> None:
    headers = Headers({"cookie": f"a={MINE}"})
    assert outdated("a", SECURE, headers) == ["a=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0"]
    assert outdated("a", PLAIN, headers) == []
    assert outdated("a", SECURE, Headers({"cookie": f"__Host-a={MINE}"})) == []


def test_cookies_are_for_this_host_over_tls_only(public: httpx.Client) -> None:
    for answer, name in ((enter(public), "login"), (public.get("/"), "visit")):
        line = set_by(answer, f"__Host-magistral-ui-{name}")
        assert "; Path=/;" in line
        assert "; Secure" in line
        assert "; HttpOnly" in line
        assert "Domain" not in line


def test_a_proxy_that_writes_no_header_is_known_by_the_name(locked: Served) -> None:
    with httpx.Client(base_url=locked.url, headers={"Host": "chat.example.org"}, trust_env=False, timeout=60) as client:
        assert "; Secure" in set_by(client.get("/"), "__Host-magistral-ui-visit")
    with httpx.Client(base_url=locked.url, trust_env=False, timeout=60) as client:
        assert "; Secure" not in set_by(client.get("/"), "magistral-ui-visit"), "from this machine, without TLS"


@pytest.mark.parametrize("name", ["magistral-ui-login", "__Secure-magistral-ui-login", "__host-magistral-ui-login"])
def test_a_login_under_a_name_that_neighbours_can_set_is_none(public: httpx.Client, name: str) -> None:
    secret = set_by(enter(public), "__Host-magistral-ui-login").partition("=")[2].partition(";")[0]
    public.cookies.clear()
    assert public.get("/config", headers={"Cookie": f"{name}={secret}"}).status_code == 401
    assert public.get("/config", headers={"Cookie": f"__Host-magistral-ui-login={secret}"}).status_code == 200


def test_a_planted_place_is_not_the_visitor_s(public: httpx.Client) -> None:
    """Else the neighbour would read the visitor's files with the same cookie."""
    answer = public.get("/", headers={"Cookie": f"magistral-ui-visit={THEIRS}"})
    assert THEIRS not in set_by(answer, "__Host-magistral-ui-visit")
    assert "Max-Age=0" in set_by(answer, "magistral-ui-visit")


def test_two_logins_are_none_and_signing_out_ends_both(locked: Served) -> None:
    """Without TLS, anybody at a sibling's name can add theirs."""
    with httpx.Client(base_url=locked.url, trust_env=False, timeout=60) as client:
        mine, theirs = login_of(client), login_of(client)
        client.cookies.clear()
        for cookie, status in (
            (mine, 200),
            (f"{mine}; {mine}", 200),
            (f"magistral-ui-login={THEIRS}; {mine}", 200),
            (f"{theirs}; {mine}", 401),
            (f"{mine}; {theirs}", 401),
        ):
            assert client.get("/config", headers={"Cookie": cookie}).status_code == status
        client.post("/logout", headers={"Cookie": f"{theirs}; {mine}"})
        for cookie in (mine, theirs):
            assert client.get("/config", headers={"Cookie": cookie}).status_code == 401


def test_below_a_path_a_cookie_is_for_the_path_and_for_tls(tmp_path: Path) -> None:
    exposure = Exposure("proxy", url="https://chat.example.org/ai")
    with (
        serving(tmp_path, exposure=exposure, passwords={"": "right horse"}) as served,
        httpx.Client(base_url=f"{served.url}/ai/", headers=PUBLIC, trust_env=False, timeout=60) as client,
    ):
        line = set_by(enter(client), "__Secure-magistral-ui-login")
        assert "; Path=/ai/;" in line
        assert "; Secure" in line
        kept = {"Cookie": line.partition(";")[0]}
        assert client.get("config", headers=kept).status_code == 200
        left = client.post("logout", headers=kept)
        assert "Max-Age=0" in set_by(left, "__Secure-magistral-ui-login")
