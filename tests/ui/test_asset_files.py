"""The page's own files: a browser never mixes those of two versions, and keeps those of one."""

import shutil
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from magistral_ui.ui.asset_files import ASSETS, ASSETS_URL, VERSION, AssetFiles, version_of


def test_the_address_changes_with_any_file(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ASSETS, copy)
    assert VERSION.endswith(version_of(copy))
    (copy / "main.js").write_text("// another one")
    changed = version_of(copy)
    assert changed != version_of(ASSETS)
    (copy / "main.js").rename(copy / "other.js")
    assert version_of(copy) != changed


@pytest.mark.parametrize(
    ("version", "kept"), [(f"{VERSION}/", "immutable"), ("assets-000000000000/", "no-cache"), ("", "no-cache")]
)
def test_only_files_of_this_version_are_kept_unasked(version: str, kept: str) -> None:
    assert ASSETS_URL.endswith(VERSION)
    client = TestClient(Starlette(routes=[Mount("/magistral", AssetFiles())]))
    for name in ("main.js", "vendor/katex.css"):
        answer = client.get(f"/magistral/{version}{name}")
        assert answer.content == (ASSETS / name).read_bytes()
        assert kept in answer.headers["cache-control"]
        again = client.get(f"/magistral/{version}{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert kept in again.headers["cache-control"]
    assert client.get(f"/magistral/{version}nothing.js").status_code == 404
