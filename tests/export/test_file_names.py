"""Titles become file names that every system takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.export.document import file_name

NAMES = {
    "A sum": "A sum.json",
    "What is 1/2?": "What is 1-2.json",
    "C:\\Windows\\x": "C-Windows-x.json",
    "../../etc/passwd": "etc-passwd.json",
    "<b>*bold*</b>": "bbold-b.json",
    ".hidden": "hidden.json",
    "--flag": "flag.json",
    "dots... ": "dots.json",
    "a\nb\tc\x00d\x1b[31m": "a b cd[31m.json",
    "Größe — 中文 🧮": "Größe — 中文 🧮.json",
    "e\u0301": "é.json",
    "invoice\u202egnp.exe": "invoicegnp.exe.json",
    "می\u200cخواهم": "می\u200cخواهم.json",
    "👩\u200d👧": "👩\u200d👧.json",
    "CON": "_CON.json",
    "con.txt": "_con.txt.json",
    "Lpt1 ": "_Lpt1.json",
    "nul .x": "_nul .x.json",
    "COM¹": "_COM¹.json",
    "Console": "Console.json",
    "": "Conversation.json",
    " ?*. ": "Conversation.json",
    "\ud800": "Conversation.json",
    "a" * 500: "a" * 80 + ".json",
    "中" * 500: "中" * 66 + ".json",
}


@pytest.mark.parametrize("title", NAMES, ids=ascii)
def test_a_title_becomes_a_name(title: str) -> None:
    assert file_name(title, "json", "Conversation") == NAMES[title]


def test_without_any_name_there_is_still_one() -> None:
    assert file_name("?", "md", "?") == "_.md"


@given(st.text() | st.text(alphabet="conaux1. /\\:*-\u202e\u200d\ud800") | st.text(alphabet="中🧮a", min_size=60))
def test_any_title_becomes_a_name_that_every_system_takes(title: str) -> None:
    name = file_name(title, "html", "x")
    stem = name.removesuffix(".html")
    assert 1 <= len(stem.encode("utf-8")) <= 201
    assert not set(stem) & set('<>:"/\\|?*\n\r\t\x00\u202e\u2066')
    assert stem == stem.strip() == stem.strip(".").lstrip("-")
    assert stem.split(".")[0].strip().lower() not in {"con", "prn", "aux", "nul", "com1", "lpt1"}
