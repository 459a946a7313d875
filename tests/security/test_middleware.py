"""What reaches the page at all: names, origins, routes, headers; each is tried on a running page that strangers can reach."""

import re
from typing import Any

import httpx
import pytest

from tests.security.conftest import Served

CLOSED = [
    ("GET", "/gradio_api/deep_link?session_hash=x"),
    ("GET", "/gradio_api/openapi.json"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/monitoring"),
    ("GET", "/monitoring/summary"),
    ("GET", "/gradio_api/runs"),
    ("GET", "/gradio_api/run-history/records"),
    ("GET", "/gradio_api/token"),
    ("GET", "/gradio_api/user"),
    ("GET", "/gradio_api/dev/reload"),
    ("GET", "/gradio_api/queue/status"),
    ("GET", "/gradio_api/vibe-code"),
    ("POST", "/gradio_api/vibe-edit"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/process_recording"),
    ("POST", "/gradio_api/stream/x"),
    ("POST", "/gradio_api/run/chat"),
    ("POST", "/gradio_api/run/say"),
    ("POST", "/gradio_api/api/predict"),
    ("POST", "/gradio_api/call/say"),
    ("GET", "/gradio_api/proxy=http://127.0.0.1:1/"),
    ("GET", "/gradio_api/file=http://127.0.0.1:1/"),
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/file=app.py"),
    ("GET", "/gradio_api/file=/proc/self/environ"),
    ("GET", "/gradio_api/file/etc/passwd"),
    ("GET", "/static/../app.py"),
    ("GET", "/static/%2e%2e/%2e%2e/app.py"),
    ("GET", "/static/..%5c..%5capp.py"),
    ("GET", "/magistral/../../app.py"),
    ("GET", "/magistral/login.html"),
    ("GET", "/magistral/package.json"),
    ("GET", "//evil.example/"),
    ("PUT", "/"),
    ("DELETE", "/config"),
    ("TRACE", "/"),
    ("OPTIONS", "/gradio_api/queue/join"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED, ids=[f"{method} {path}" for method, path in CLOSED])
def test_there_is_nothing_but_what_the_page_needs(page: Served, method: str, path: str) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        request = client.build_request(method, page.url + "/", json={"data": []} if method == "POST" else None)
        request.url = request.url.copy_with(raw_path=path.encode())  # as it is, not tidied up
        answer = client.send(request)
    assert answer.status_code in (400, 404), answer.text[:200]
    assert b"root:" not in answer.content


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "a b", "localhost@evil.example", "x/../y"]
)
def test_a_rebound_name_gets_nothing(page: Served, host: str) -> None:
    for path in ("/", "/config", "/gradio_api/info"):
        answer = httpx.get(page.url + path, headers={"Host": host}, trust_env=False, timeout=60)
        assert answer.status_code in (400, 421)
        assert "gradio_config" not in answer.text


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_another_website_can_drive_nothing(page: Served, origin: str) -> None:
    visitor = page.browser().open()
    for answer in (
        visitor.http.post("/magistral/act/composer/say", json={"data": []}, headers={"Origin": origin}),
        visitor.http.get("/config", headers={"Origin": origin}),
        visitor.http.options(
            "/magistral/act/composer/say", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
        ),
    ):
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_browser_that_says_it_asks_for_another_website_is_refused_and_a_link_is_not(page: Served) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    with httpx.Client(base_url=page.url, trust_env=False, timeout=60) as client:
        assert client.get("/config", headers={**foreign, "Sec-Fetch-Mode": "cors"}).status_code == 403
        assert client.get("/gradio_api/app_id", headers={**foreign, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
        assert client.post("/login", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code == 403
        assert client.get("/", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_our_own_origin_is_let_in_and_no_answer_names_an_origin(page: Served) -> None:
    answer = httpx.get(page.url + "/config", headers={"Origin": page.url}, trust_env=False, timeout=60)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/config", "/magistral/main.js", "/nothing", "/magistral/act/composer/say"])
def test_every_answer_has_the_headers(page: Served, path: str) -> None:
    headers = httpx.get(page.url + path, trust_env=False, timeout=60).headers
    policy = headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'self'" in policy
    assert "http:" not in policy
    assert "https:" not in policy
    assert "*" not in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert scripts
    assert "'unsafe-inline'" not in scripts[1]


def test_the_page_s_scripts_have_a_nonce_that_is_new_each_time(page: Served) -> None:
    first, second = (httpx.get(page.url, trust_env=False, timeout=60) for _ in range(2))
    nonces = [re.findall(r"'nonce-([\w-]+)'", each.headers["content-security-policy"])[0] for each in (first, second)]
    assert nonces[0] != nonces[1]
    assert re.findall(r"<script(?! nonce=)", first.text) == []
    assert set(re.findall(r'<script nonce="([\w-]+)"', first.text)) == {nonces[0]}


def test_nothing_in_the_page_comes_from_elsewhere(page: Served) -> None:
    text = httpx.get(page.url, trust_env=False, timeout=60).text
    loaded: list[Any] = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:)?//[^\"]*", text)
    assert loaded == []


def test_a_query_chooses_no_state_of_another_session(page: Served) -> None:
    plain = httpx.get(page.url, trust_env=False, timeout=60).text
    linked = httpx.get(page.url + "/?deep_link=../../x&page=y", trust_env=False, timeout=60).text
    assert re.findall(r'"deep_link_state":"(\w+)"', plain) == re.findall(r'"deep_link_state":"(\w+)"', linked)


def test_what_runs_in_the_browser_only_is_not_called_here(page: Served) -> None:
    browser = page.browser().open()
    for name in ("js_fn", "js_fn_1"):
        body = {"data": [], "fn_index": page.numbers[name], "session_hash": browser.session}
        assert browser.http.post("/gradio_api/queue/join", json=body).status_code == 404
        assert browser.http.post(f"/gradio_api/call/{name}", json={"data": []}).status_code == 404


@pytest.mark.parametrize(
    "action", ["turns/none", "turns/__init__", "model/say", "none/attach", "turns/attach/x", "turns"]
)
def test_there_are_no_actions_but_those_of_the_page(page: Served, action: str) -> None:
    assert page.browser().open().act(action).status_code == 404
