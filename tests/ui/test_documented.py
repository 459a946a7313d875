"""What README.md and docs/api.md tell programmers to write, run as it stands there against a page that is served."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.engines.scripted import ScriptedEngine
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui import schemas
from magistral_ui.ui.page import build_page, close, launch
from tests.loopback import free_port

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


def test_nothing_is_missing_in_the_document() -> None:
    document = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    properties = schemas.reply()["properties"]
    arguments = schemas.tool()["input"]["properties"]
    for name in (*PARAMETERS, *properties, *properties["usage"]["properties"], *arguments, schemas.tool()["name"]):
        assert f"`{name}`" in document, name
