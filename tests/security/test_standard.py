"""What the table of the ASVS in docs/security.md says and no other test shows, and that each test it names is there."""

import io
import json
import logging
import re
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from magistral_ui.json_log import JsonFormatter
from tests.security.conftest import Served

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
SCRIPTS = ("text/javascript", "application/javascript")
"""The system's list of kinds has one or the other."""
OWN = ["/", "/config", "/gradio_api/info", "/nothing"]
PATHS = [*OWN, "/magistral/main.js", "/magistral/page.css"]


def named_tests() -> list[str]:
    """`file.py::test` or `file.py`, below `tests`, in the rows of the table."""
    table = TEXT.partition("## OWASP ASVS")[2].partition("\n## ")[0]
    return sorted(set(re.findall(r"`([\w/]+\.py(?:::\w+)?)`", table)))


@pytest.mark.parametrize("name", named_tests())
def test_a_test_that_the_table_names_is_there(name: str) -> None:
    file, _, test = name.partition("::")
    text = (TESTS / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {test}\(" if test else r"^def test_", text, re.M)


def test_a_requirement_stands_once_and_says_whether_it_is_met() -> None:
    table = TEXT.partition("## OWASP ASVS")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d[\d., –]*) \| ([^|]+) \| ([^|]+) \| ([^|]*) \|$", table, re.M)
    numbers = [number for listed, *_ in rows for number in listed.split(", ")]
    assert len(numbers) == len(set(numbers)) > 100
    assert {met for _, met, *_ in rows} == {"yes", "partly", "**no**"}


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_says_what_it_is(page: Served, path: str) -> None:
    kind = httpx.get(page.url + path, trust_env=False, timeout=60).headers["content-type"]
    assert not kind.startswith("text/") or "charset=utf-8" in kind
    assert kind.partition(";")[0] in ("text/html", "text/plain", "text/css", *SCRIPTS, "application/json")


@pytest.mark.parametrize("path", [*OWN, "/magistral/model", "/magistral/live", "/magistral/export"])
def test_what_is_somebody_s_is_kept_by_no_cache(page: Served, path: str) -> None:
    assert httpx.get(page.url + path, trust_env=False, timeout=60).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PATHS)
def test_no_header_names_a_version(page: Served, path: str) -> None:
    headers = httpx.get(page.url + path, trust_env=False, timeout=60).headers
    assert headers["server"] == "magistral-ui"
    assert "x-powered-by" not in headers


def test_the_page_asks_for_no_camera_microphone_or_place(page: Served) -> None:
    allowed = httpx.get(page.url, trust_env=False, timeout=60).headers["permissions-policy"]
    for sensor in ("camera", "microphone", "geolocation", "display-capture"):
        assert f"{sensor}=()" in allowed


def test_a_line_of_the_journal_says_when_in_utc_and_what_came_stays_inside_of_it() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    record = logging.LogRecord("magistral_ui.x", logging.INFO, "x.py", 1, "refused", None, None)
    record.facts = {"address": 'a\r\n{"event": "login"}\x1b[2J\u2028', "status": 403}
    handler.handle(record)
    (line,) = out.getvalue().splitlines()
    assert line.isascii()
    told = json.loads(line)
    assert datetime.fromisoformat(told["time"]).utcoffset() == timedelta(0)
    assert told["event"] == "refused"
