"""What stands between the network and the page has a floor: below it are holes that are known."""

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LINES = [
    line.partition("  #")
    for name in ("requirements-gguf.txt", "requirements-torch.txt", "requirements-mcp.txt", "space/requirements.txt")
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
REASONS = {Requirement(line).name: reason for line, _, reason in LINES}
VULNERABLE = {
    "starlette": "1.3.0",
    "uvicorn": "0.11.6",
    "h11": "0.14.0",
    "python-multipart": "0.0.30",
    "orjson": "3.11.5",
    "jinja2": "3.1.5",
    "pillow": "12.2.0",
}
"""The last version with a hole that an advisory tells of."""


@pytest.mark.parametrize(("name", "last"), VULNERABLE.items())
def test_no_version_with_a_known_hole_is_installed(name: str, last: str) -> None:
    lines = [Requirement(line) for line, _, _ in LINES if Requirement(line).name == name]
    assert lines
    for each in lines:
        assert last not in each.specifier
        assert version(name) in each.specifier
    assert "CVE-" in REASONS[name]


def test_what_is_installed_is_what_is_asked_for() -> None:
    wanted = [Requirement(line) for line, _, _ in LINES]
    here = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    assert [str(each) for each in here if version(each.name) not in each.specifier] == []
