"""`--auth huggingface`: on a Space, only who has signed in to Hugging Face comes in, by Gradio's own login; nowhere else."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from itsdangerous import TimestampSigner

from magistral_ui.errors import BadSetting
from magistral_ui.web.access import passwords_of
from magistral_ui.web.exposure import Exposure, exposure_of
from magistral_ui.web.hf_oauth import HuggingFaceLogin, hugging_face_login
from magistral_ui.web.passwords import login_of
from tests.security.conftest import Browser, Served, serving
from tests.security.test_owners import WAIT, arrive, leave, streaming, titles

SECRET = "the secret that the Hub gave"
SPACE = Exposure("space", "127.0.0.1", "https://127.0.0.1", {"127.0.0.1"})


def cookie(secret: str = SECRET, **info: object) -> str:
    """As Starlette's SessionMiddleware writes it for Gradio."""
    told = {"userinfo": {"preferred_username": "ann"}, "expires_at": time.time() + 60, **info}
    signer = TimestampSigner(hashlib.sha256((secret + "-v4").encode()).hexdigest())
    return signer.sign(base64.b64encode(json.dumps({"oauth_info": told}).encode())).decode()


class Provider(BaseHTTPRequestHandler):
    """Says where its login is."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        base = f"http://{self.headers['Host']}"
        body = json.dumps({"issuer": base, "authorization_endpoint": base + "/oauth/authorize"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def provider() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """What Gradio finds in a Space."""
    import gradio.oauth as oauth

    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "someone/magistral")
    monkeypatch.setenv("SPACE_HOST", "127.0.0.1")
    monkeypatch.setattr(oauth, "OAUTH_CLIENT_ID", "id")
    monkeypatch.setattr(oauth, "OAUTH_CLIENT_SECRET", SECRET)
    monkeypatch.setattr(oauth, "OAUTH_SCOPES", "openid profile")
    monkeypatch.setattr(oauth, "OPENID_PROVIDER_URL", provider)


@pytest.fixture
def url(tmp_path: Path, space: None) -> Iterator[str]:  # it is there
    with serving(tmp_path, exposure=SPACE, passwords={}, identity=HuggingFaceLogin(SECRET)) as served:
        yield served.url


def test_a_stranger_finds_the_way_to_the_hub(url: str, provider: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as visitor:
        page = visitor.get("/", headers={"Accept": "text/html"})
        assert "Sign in with Hugging Face" in page.text
        assert re.search(r"<form[^>]* hidden", page.text), "there is no password to type"
        assert visitor.get("/config").status_code == 401
        link = re.search(r'href="(login/huggingface)"', page.text)
        assert link
        sent = visitor.get("/" + link[1])
        assert sent.status_code == 302
        target = urlsplit(sent.headers["Location"])
        assert sent.headers["Location"].startswith(provider + "/oauth/authorize")
        assert parse_qs(target.query)["redirect_uri"][0].startswith("https://127.0.0.1/login/callback")
        back = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert visitor.get("/login/callback?code=x&state=forged", headers=back).status_code == 307, "begin again"
        assert visitor.post("/login", data={"username": "", "password": ""}).status_code == 401


def test_who_has_signed_in_comes_in_and_can_leave(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=60, headers={"Cookie": f"session={cookie()}"}) as visitor:
        assert visitor.get("/config").status_code == 200
        left = visitor.post("/logout")
        assert any(line.startswith('session=""') for line in left.headers.get_list("set-cookie"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        cookie("another secret"),
        cookie(expires_at=time.time() - 1),
        cookie(userinfo={}),
        cookie()[:-2],
    ],
)
def test_no_other_cookie_lets_in(value: str) -> None:
    scope = {"type": "http", "headers": [(b"cookie", f"session={value}".encode())]}
    assert HuggingFaceLogin(SECRET).active_login(scope) is None


def test_a_good_one_among_others_does() -> None:
    scope = {"type": "http", "headers": [(b"cookie", f"a=b; session={cookie()}; c=d".encode())]}
    found = HuggingFaceLogin(SECRET).active_login(scope)
    assert found is not None
    assert found.login == login_of("huggingface name", "ann")


def test_it_is_offered_on_a_space_only() -> None:
    secret = {"OAUTH_CLIENT_SECRET": SECRET}
    space = exposure_of("0.0.0.0", "no", {"SPACE_HOST": "a.hf.space"})
    assert hugging_face_login("huggingface", space, secret) is not None
    assert hugging_face_login("ann:correct horse", space, secret) is None
    assert hugging_face_login(None, space, secret) is None
    assert passwords_of("huggingface", space, False)[0] is not None
    for exposure, environment in ((space, {}), (Exposure(), secret)):
        with pytest.raises(BadSetting) as refused:
            hugging_face_login("huggingface", exposure, environment)
        assert refused.value.message.key == "auth_needs_space"


@pytest.mark.usefixtures("space")
def test_a_hugging_face_login_is_the_persons_whatever_they_are_called(tmp_path: Path) -> None:
    def known_as(served: Served, name: str, number: str) -> Browser:
        kept = cookie(userinfo={"preferred_username": name, "sub": number})
        return arrive(served.browser(Cookie=f"session={kept}"))

    with serving(tmp_path, exposure=SPACE, passwords={}, identity=HuggingFaceLogin(SECRET)) as served:
        known_as(served, "ann", "1").say("of the first ann")
        assert titles(known_as(served, "anna", "1")) == ["of the first ann"], "she has taken another name"
        assert titles(known_as(served, "ann", "2")) == [], "and somebody else has taken hers"


@pytest.mark.usefixtures("space")
def test_a_hugging_face_login_is_over_once_somebody_has_signed_out(tmp_path: Path) -> None:
    kept = cookie(userinfo={"preferred_username": "ann", "sub": "1"})
    with serving(tmp_path, exposure=SPACE, passwords={}, identity=HuggingFaceLogin(SECRET)) as served:
        browser = arrive(served.browser(Cookie=f"session={kept}"))
        with streaming(browser, f"/gradio_api/heartbeat/{browser.session}") as (_, ended):
            assert not ended.is_set()
            leave(browser)
            assert ended.wait(WAIT)
        assert browser.http.get("/config").status_code == 401, "whoever has kept the cookie"
