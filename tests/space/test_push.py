"""`space/push.py` with the Hub's real client, against a hub on loopback: what goes up, and what never does."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
from huggingface_hub.utils import close_session, disable_progress_bars, enable_progress_bars

from magistral_ui.models.cards import MAGISTRAL_1_2, MINISTRAL_3_3B
from space.card import PRELOADED, front_of
from space.push import main
from tests.hub.conftest import point_at
from tests.space.hub import TOKEN, SpacesHub, serving

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning")
"""The Hub's client does so itself, without hf_xet."""
GENERATED = ("__pycache__", "node_modules", ".pyc", ".git/", "tests/", "docs/")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SpacesHub]:
    """Runs meanwhile, and the client has a token for it."""
    with serving() as running:
        point_at(monkeypatch, running.url, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        disable_progress_bars()
        yield running
        enable_progress_bars()
    close_session()


def test_a_space_gets_all_that_the_app_needs(hub: SpacesHub) -> None:
    assert main(["someone/magistral"], {}) == 0
    space = hub.spaces["someone/magistral"]
    assert space.files["app.py"] == (ROOT / "app.py").read_bytes()
    weights = "magistral_ui/models/demo/model.safetensors"
    assert space.files[weights] == (ROOT / weights).read_bytes()
    tracked = subprocess.run(["git", "ls-files", "magistral_ui"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:  # not in an archive of the sources
        needed = [name for name in tracked.stdout.splitlines() if not name.endswith((".md", ".d.ts"))]
        assert not set(needed) - set(space.files)
    assert not [name for name in space.files if any(part in name for part in GENERATED)]
    assert not space.private
    assert space.hardware is None, "nobody asked for hardware that costs money"


def test_what_is_gone_here_goes_there(hub: SpacesHub) -> None:
    assert main(["someone/magistral"], {}) == 0
    assert set(hub.spaces["someone/magistral"].files) >= {".gitattributes", "README.md"}
    assert "left-over.py" not in hub.spaces["someone/magistral"].files
    assert main(["magistral"], {}) == 0, "a second time, by its name alone"
    assert len(hub.spaces) == 1


def test_hardware_brings_what_runs_there(hub: SpacesHub) -> None:
    assert main(["someone/magistral", "--hardware", "a10g-small", "--private"], {}) == 0
    space = hub.spaces["someone/magistral"]
    assert (space.hardware, space.private) == ("a10g-small", True)
    front = front_of(space.files["README.md"].decode())
    assert front["suggested_hardware"] == "a10g-small"
    assert front["preload_from_hub"] == [f"{MAGISTRAL_1_2.repository} {','.join(PRELOADED)} {MAGISTRAL_1_2.revision}"]
    assert b"whl/cpu" not in space.files["requirements.txt"]
    assert main(["someone/magistral"], {}) == 0, "again, without naming it"
    assert front_of(space.files["README.md"].decode())["suggested_hardware"] == "a10g-small"
    assert hub.cards, "the Hub was asked whether it takes the card"


def test_a_space_for_gguf_files_gets_no_torch(hub: SpacesHub) -> None:
    assert main(["someone/magistral", "--gguf"], {}) == 0
    space = hub.spaces["someone/magistral"]
    assert space.variables == {"MAGISTRAL_UI_MODEL": f"{MINISTRAL_3_3B.gguf_repositories[0]}:Q4_K_M"}
    lines = space.files["requirements.txt"].decode().splitlines()
    assert [line for line in lines if line.startswith("xllamacpp==")]
    assert not [line for line in lines if line.startswith(("-", "torch", "transformers", "accelerate", "bitsandbytes"))]
    card = space.files["README.md"].decode()
    assert front_of(card)["models"] == [MINISTRAL_3_3B.gguf_repositories[0]]
    assert "Ministral 3 3B answers" in card
    assert "demo model" not in card
    assert not [name for name in space.files if "zerogpu" in name]
    assert main(["someone/magistral", "--gguf"], {"MAGISTRAL_UI_MODEL": "ann/Other-GGUF:Q8_0"}) == 0
    assert space.variables == {"MAGISTRAL_UI_MODEL": "ann/Other-GGUF:Q8_0"}
    assert front_of(space.files["README.md"].decode())["models"] == ["ann/Other-GGUF"]


def test_secrets_are_set_and_never_sent_as_files(hub: SpacesHub) -> None:
    environment = {
        "MAGISTRAL_UI_API_KEY": "top-secret-key",
        "MAGISTRAL_UI_AUTH": "ann:correct horse",
        "MAGISTRAL_UI_BASE_URL": "https://models.example/v1",
        "MAGISTRAL_UI_PORT": "9000",
        "OTHER": "other-secret",
        "UNNAMED": "stays-here",
    }
    assert main(["someone/magistral", "--secret", "OTHER"], environment) == 0
    space = hub.spaces["someone/magistral"]
    assert space.secrets == {name: environment[name] for name in ("MAGISTRAL_UI_API_KEY", "MAGISTRAL_UI_AUTH", "OTHER")}
    assert space.variables == {"MAGISTRAL_UI_BASE_URL": "https://models.example/v1"}
    sent = b"".join(space.files.values()).decode("latin-1")
    assert not [value for name, value in environment.items() if name != "MAGISTRAL_UI_PORT" and value in sent]
    assert "preload_from_hub" not in front_of(space.files["README.md"].decode())
    commit = space.asked.index("commit")
    assert space.asked.index("secrets") < commit, "the first build has them already"


def test_a_dry_run_asks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"MAGISTRAL_UI_API_KEY": "top-secret-key", "MAGISTRAL_UI_MODEL": "demo"}
    assert main(["someone/magistral", "--dry-run"], environment) == 0  # offline, with no hub to be reached
    told = capsys.readouterr().out
    size = (ROOT / "magistral_ui/models/demo/model.safetensors").stat().st_size
    assert f"{size:,}  magistral_ui/models/demo/model.safetensors" in told
    assert "MAGISTRAL_UI_MODEL=demo" in told
    assert "secret MAGISTRAL_UI_API_KEY" in told
    assert "top-secret-key" not in told


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["elsewhere/magistral"], None, "does not let you push"),
        (["not a name!"], None, "is not a valid name for a Space"),
        (["someone/magistral", "--secret", "ABSENT"], None, "is not set in this shell"),
        (["someone/magistral", "--gguf", "--hardware", "a10g-small"], None, "a10g-small has a GPU"),
        (["someone/magistral"], 401, "are not signed in to the Hub"),
        (["someone/magistral"], 500, "could not be pushed"),
    ],
)
def test_what_goes_wrong_is_told(
    hub: SpacesHub, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int | None, said: str
) -> None:
    hub.refusal = (status, "no") if status else None
    assert main(arguments, {}) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_without_a_token_nothing_is_tried(hub: SpacesHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["someone/magistral"], {}) == 2
    assert not hub.spaces


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"TOKEN = 'hf_" + b"a" * 34 + b"'", "seems to contain an access key"), (b"x" * 50_000_001, "larger than 50 MB")],
)
def test_what_must_not_go_up_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    for file in (ROOT / "app.py", ROOT / "LICENSE", *ROOT.glob("requirements*.txt")):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / "space", tmp_path / "space")
    (tmp_path / "magistral_ui").mkdir()
    (tmp_path / "magistral_ui" / "notes.txt").write_bytes(content)
    monkeypatch.setattr("space.push.ROOT", tmp_path)
    assert main(["someone/magistral", "--dry-run"], {}) == 2
    assert said in capsys.readouterr().err


def test_it_runs_as_a_script_from_anywhere(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "space" / "push.py"), "someone/magistral", "--dry-run", "--hardware", "zero-a10g"],
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert "app.py" in ended.stdout
