"""Below a path of a proxy's: programs find everything, cookies stay there, and no stranger chooses the path."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from gradio_client import Client
from mcp.client.client import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from magistral_ui.web.client_address import PREFIX_KEY, ForwardedHeadersMiddleware, RestorePrefixMiddleware
from magistral_ui.web.exposure import Exposure, is_prefix
from tests.nginx import HEADERS, proxied, proxy_port
from tests.security.conftest import Served, serving

PASSWORD = "right horse"
WAYS = {"taken off": (True, "/ai"), "left": (False, "/ai"), "left, told by a header": (False, "")}


@pytest.fixture(scope="module", params=WAYS.values(), ids=WAYS.keys())
def below(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Served]]:
    """The page's address behind nginx, and the page."""
    strips, known = request.param
    folder, port = tmp_path_factory.mktemp("below"), proxy_port()
    public = Exposure("proxy", url=f"http://127.0.0.1:{port}{known}")
    with (
        serving(folder, exposure=public, passwords={"": PASSWORD}) as served,
        proxied(folder / "nginx", port, served.port, "/ai", strips=strips, headers=HEADERS) as url,
    ):
        yield url, served


def test_programs_work_below_a_path(below: tuple[str, Served]) -> None:
    url, _ = below
    client = Client(url, auth=("me", PASSWORD), verbose=False, httpx_kwargs={"timeout": 60})
    assert client.predict("hello", api_name="/chat")["answer"] == "you said hello"
    client.close()

    async def ask() -> Any:
        headers = {"Authorization": f"Bearer {PASSWORD}"}
        async with (
            httpx2_client(headers) as http,
            McpClient(streamable_http_client(url + "mcp", http_client=http)) as mcp,
        ):
            return await mcp.call_tool("ask_magistral", {"question": "hello"})

    assert asyncio.run(ask()).content[0].text == "you said hello"


def httpx2_client(headers: dict[str, str]) -> Any:
    import httpx2

    return httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60)


def test_addresses_and_cookies_stay_below_the_path(below: tuple[str, Served]) -> None:
    url, _ = below
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        assert http.get("healthz").json() == {"status": "ready"}
        came = http.post("login", data={"username": "", "password": PASSWORD})
        assert came.json() == {"success": True}
        assert "Path=/ai/;" in came.headers["set-cookie"]
        page = http.get("", headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert "Path=/ai/;" in page.headers["set-cookie"]
        assert http.get("config").json()["root"] == url.rstrip("/")
        for name in ("magistral/main.js", "theme.css", "gradio_api/info"):
            assert http.get(name).status_code == 200, name
        assert ' src="/' not in page.text
        assert ' href="/' not in page.text


def test_the_page_is_found_at_its_root_too_from_this_machine(below: tuple[str, Served]) -> None:
    _, served = below
    with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as http:
        came = http.post("/login", data={"username": "", "password": PASSWORD})
        assert "Path=/;" in came.headers["set-cookie"]
        assert http.get("/config").json()["root"] == served.url


@pytest.mark.parametrize(
    "told",
    ["/evil", "//evil.example", "https://evil.example", "/a/../b", "/a\tb", "/a;Path=/", "/a b", "/" + "a" * 300, "/ä"],
)
def test_a_stranger_s_word_for_the_path_changes_nothing(page: Served, locked: Served, told: str) -> None:
    headers = {"X-Forwarded-Prefix": told.encode("utf-8")}
    for served, public in ((page, {}), (locked, {"Host": "chat.example.org"})):
        sent: Any = {**public, **headers}
        if served is locked and told == "/evil":
            continue  # here the test is the proxy, whose plain path is believed
        with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as http:
            for path in ("/", "/login", "/evil", "/healthz"):
                plain, tried = http.get(path, headers=public), http.get(path, headers=sent)
                assert tried.status_code == plain.status_code
                assert "evil" not in str(tried.headers)
                assert "evil.example" not in tried.text
                assert "Path=/;" in tried.headers.get("set-cookie", "Path=/;")


def told_by(peer: str, exposure: Exposure, path: str = "/", *prefixes: bytes) -> dict[str, Any]:
    """What the next middleware is given."""
    seen: dict[str, Any] = {}

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)

    headers = [(b"host", b"127.0.0.1"), *((b"x-forwarded-prefix", each) for each in prefixes)]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (peer, 1)}
    asyncio.run(ForwardedHeadersMiddleware(inside, exposure=exposure)(scope, None, None))  # type: ignore[arg-type]
    return seen


def test_only_a_proxy_that_was_set_up_is_believed() -> None:
    proxy = Exposure("proxy", url="https://chat.example.org")
    assert told_by("127.0.0.1", proxy, "/", b"/ai/")[PREFIX_KEY] == "/ai"
    assert told_by("192.168.1.9", proxy, "/ai/config", b"/ai")["path"] == "/config"
    for peer, exposure, prefixes in (
        ("93.184.216.34", proxy, [b"/ai"]),
        ("127.0.0.1", Exposure("local"), [b"/ai"]),
        ("127.0.0.1", Exposure("network"), [b"/ai"]),
        ("127.0.0.1", Exposure("tunnel", url="https://x.gradio.live"), [b"/ai"]),
        ("127.0.0.1", proxy, [b"/ai", b"/other"]),
    ):
        assert PREFIX_KEY not in told_by(peer, exposure, "/", *prefixes)
    named = Exposure("proxy", url="https://chat.example.org/ai")
    assert told_by("127.0.0.1", named, "/", b"/other")[PREFIX_KEY] == "/ai", "what was set holds"
    assert told_by("127.0.0.1", named, "/aix/config")["path"] == "/aix/config"


def test_what_gradio_gets_is_whole_again() -> None:
    seen: dict[str, Any] = {}

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)

    asyncio.run(RestorePrefixMiddleware(inside)({"type": "http", "path": "/config", PREFIX_KEY: "/ai"}, None, None))  # type: ignore[arg-type]
    assert (seen["path"], seen["raw_path"], seen["root_path"]) == ("/ai/config", b"/ai/config", "/ai")


@pytest.mark.parametrize("path", ["", "/ai", "/a/b-c_d.e~f", "/.well/x"])
def test_plain_paths_may_stand_before_the_page_s(path: str) -> None:
    assert is_prefix(path)


@pytest.mark.parametrize(
    "path", ["ai", "/", "//a", "/a/", "/a//b", "/..", "/a/./b", "/a%2f", "/a?b", "/a\n", "/" + "a/" * 9 + "a"]
)
def test_other_paths_may_not(path: str) -> None:
    assert not is_prefix(path)
