"""What README.md and docs/api.md tell programmers to write, run as it stands there against a page that is served."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api.mcp_server import TOOL_NAME
from magistral_ui.ui.api.models import FinishedReply, ToolRequest, UsageValue
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from magistral_ui.web.passwords import Passwords
from tests.loopback import free_port
from tests.scripted_engine import ScriptedEngine

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, ScriptedEngine]]:
    engine = ScriptedEngine([Reasoning("hm"), Answer("752")])
    visitors = Visitors(engine)
    page = build_page(engine, visitors)
    yield launch(page, visitors, port=free_port()).rstrip("/"), engine
    engine.close()
    close(page)


def code(name: str) -> str:
    """All Python of a document; later pieces go on from the earlier ones."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parametrize(("name", "asked"), [("README.md", 1), ("docs/api.md", 4)])
def test_what_is_written_there_runs(
    served: tuple[str, ScriptedEngine],
    name: str,
    asked: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, engine = served
    Image.new("RGB", (9, 7), "red").save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert ADDRESS in code(name)
    before = len(engine.requests)
    known: dict[str, object] = {}
    exec(code(name).replace(ADDRESS, url), known)
    known["client"].close()  # type: ignore[attr-defined]
    assert len(engine.requests) - before == asked
    assert "752" in capsys.readouterr().out


def shell(heading: str) -> str:
    """The first shell code of docs/api.md after `heading`."""
    document = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(.*?)```", document[document.index(heading) :], re.DOTALL)
    assert found
    return found[1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
@pytest.mark.parametrize(("heading", "password"), [("**Without a library.**", ""), ("## Logging in", "long & odd #1")])
def test_what_is_written_there_for_curl_runs(heading: str, password: str, tmp_path: Path) -> None:
    engine = ScriptedEngine([Reasoning("hm"), Answer("752")])
    visitors = Visitors(engine)
    page = build_page(engine, visitors, login=bool(password))
    people = Passwords({"": password}) if password else None
    url = launch(page, visitors, port=free_port(), passwords=people).rstrip("/")
    try:
        script = shell(heading).replace(ADDRESS, url).replace("PASSWORD", password)
        clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        done = subprocess.run(
            ["sh", "-ec", script], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300
        )
        assert "event: complete" in done.stdout, done
        assert '"answer": "752"' in done.stdout
    finally:
        close(page)
        engine.close()
        visitors.close()


def test_nothing_is_missing_in_the_document() -> None:
    document = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    fields = (*FinishedReply.model_fields, *UsageValue.model_fields, *ToolRequest.model_fields)
    for name in (*PARAMETERS, *fields, TOOL_NAME):
        assert f"`{name}`" in document, name
