"""Marks behind each other, such as accents: to sort a run of them takes Python a time that grows with its square."""

import random
import unicodedata
from collections.abc import Iterator

import pytest

from magistral_ui.sessions.history import search
from tests.security.conftest import Served, serving

MARKS = "\u0316\u0301\u0323"
"""Below, above, below: no two of them in the order in which they are sorted."""
AT_ONCE = 2_000
"""Characters that are sorted in some milliseconds whatever they are."""


@pytest.fixture
def normalized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters were normalized at once, each time."""
    lengths: list[int] = []
    real = unicodedata.normalize

    def counting(form: str, text: str) -> str:
        lengths.append(len(text))
        return real(form, text)  # type: ignore[arg-type]

    monkeypatch.setattr(unicodedata, "normalize", counting)
    return lengths


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("named"), passwords={"alice": "right horse battery"}) as served:
        yield served


def test_a_message_of_marks_holds_up_nobody(page: Served, normalized: list[int]) -> None:
    alice = page.browser().open()
    alice.say(MARKS * 5_000)
    listed = alice.act("history/refresh", {"query": MARKS * 5_000})
    assert listed.status_code == 200
    assert sum(normalized) >= 15_000, "it is folded for searches"
    assert max(normalized) <= AT_ONCE


def test_a_name_of_marks_holds_up_nobody(named: Served, normalized: list[int]) -> None:
    name, stranger = MARKS * 800, named.browser()
    form = {"username": (None, name), "password": (None, "wrong horse battery")}
    assert stranger.http.post("/login", files=form).status_code == 401
    assert stranger.http.post("/mcp", auth=(name, "wrong horse battery"), json={}).status_code == 401
    assert max(normalized, default=0) <= AT_ONCE
    right = {"username": "ＡＬＩＣＥ", "password": "right horse battery"}
    assert stranger.http.post("/login", data=right).json() == {"success": True}


def test_text_is_folded_alike_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    pick = random.Random(1)
    alphabet = "aÅßΐﬃé漢が한각\u0344\u0f73\u0301\u0316\uff9e\U0001d15e\ufdfa"
    texts = ["".join(pick.choices(alphabet, k=700)) for _ in range(20)]
    whole = [search._fold(text) for text in texts]
    for piece in (1, 7, search.FOLD_CHUNK):
        monkeypatch.setattr(search, "FOLD_CHUNK", piece)
        assert [search.folded(text) for text in texts] == whole
