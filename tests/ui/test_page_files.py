"""The page's files have addresses that change with them, so that a browser mixes no versions after an update."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from magistral_ui.ui import page_files
from magistral_ui.ui.launch import head
from magistral_ui.ui.page_files import page_files_mount, page_path


@pytest.fixture
def browser() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=[page_files_mount()])) as client:
        yield client


def test_the_page_names_its_files_by_version(browser: TestClient) -> None:
    addresses = re.findall(r'href="([^"]+)"', head())
    assert {address.rpartition("/")[0].removesuffix("/vendor") for address in addresses} == {page_path()}
    for address in addresses:
        answer = browser.get(f"/{address}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("version", ["", "0123456789ab/"])
def test_files_of_no_version_or_another_are_asked_for_again(browser: TestClient, version: str) -> None:
    answer = browser.get(f"/magistral/{version}main.js")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    again = browser.get(f"/magistral/{version}main.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


@pytest.mark.parametrize("path", ["nothing.js", "0123456789ab", "0123456789ab/", "0123456789ab/../../page.py", ""])
def test_nothing_else_is_there(browser: TestClient, path: str) -> None:
    assert browser.get(f"/magistral/{path}").status_code == 404


def test_a_changed_file_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_files, "ASSETS", tmp_path)
    found = set()
    for text in ("a", "b"):
        (tmp_path / "main.js").write_text(text, encoding="utf-8")
        page_path.cache_clear()
        found.add(page_path())
    page_path.cache_clear()
    assert len(found) == 2
