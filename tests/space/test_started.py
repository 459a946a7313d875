"""The gathered folder is started as a Space starts it, and used over HTTP; with the Python and the packages of the tests."""

from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client

from space.push import gather
from tests.space.starting import started, until_ready


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space")
    gather(folder, "cpu-basic", {})
    return folder


def test_the_folder_alone_serves_strangers(space: Path, tmp_path: Path) -> None:
    with started(space, tmp_path / "home") as (url, process):
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as visitor:
            page = visitor.get("/", headers={"Accept": "text/html"})
            assert "Magistral UI" in page.text, "no password stands before it"
            assert "https://*.hf.space" in page.headers["Content-Security-Policy"], "the Hub shows it in a frame"
            config = visitor.get("/config").json()
            assert "limits_message" in str(config["components"]), "the limits for strangers hold, and are told"
            foreign = visitor.get("/", headers={"Host": "elsewhere.example"})
            assert foreign.status_code == 421
        until_ready(url)
        client = Client(url, verbose=False, httpx_kwargs={"timeout": 60})
        message = {"text": "What is 487 + 265?", "files": []}
        reply = client.predict(message, {"temperature": 0.0, "seed": 1}, api_name="/chat")
        client.close()
        port = int(url.rstrip("/").rpartition(":")[2])
        listening = {each.laddr for each in psutil.Process(process).net_connections("tcp") if each.status == "LISTEN"}
        assert {(each.ip, each.port) for each in listening} == {("0.0.0.0", port)}, "and nothing else"
        assert "752" in reply["answer"]
        assert reply["reasoning"]
        files = {path.relative_to(space).parts[0] for path in space.rglob("*") if "__pycache__" not in path.parts}
        assert files == {"app.py", "magistral_ui", "LICENSE", "README.md", "requirements.txt"}, (
            "nothing is written there"
        )
