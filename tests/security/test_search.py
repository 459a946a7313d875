"""Searches of one stranger: they neither hold the threads that serve everybody, nor another stranger's search."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from magistral_ui.client import hashed
from magistral_ui.sessions.history.search import SearchResult
from tests.security.conftest import Browser, Served

MANY = 44
"""More than the threads that Gradio answers events with."""


def refresh(browser: Browser, query: str = "") -> Any:
    answer = browser.act("history/refresh", {"query": query})
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json()["history"])


def test_searches_that_take_for_ever_hold_up_nobody(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    mallory, alice = page.browser().open(), page.browser().open()
    alice.say("about pears")
    history, may_end, began = page.visitors._history, threading.Event(), threading.Semaphore(0)
    assert history is not None
    real, theirs = history.search, hashed(mallory.place["visitor"])

    def slow(visitor: str, query: str) -> SearchResult:
        if visitor == theirs:
            began.release()
            assert may_end.wait(60)
        return real(visitor, query)

    monkeypatch.setattr(history, "search", slow)
    with ThreadPoolExecutor(MANY) as attackers:
        try:
            asked = [attackers.submit(refresh, mallory, "pears") for _ in range(MANY)]
            assert began.acquire(timeout=30)
            assert "about pears" in refresh(alice), "the list, and whatever else needs a thread"
            assert alice.say("and apples")["alert"] is None
        finally:
            may_end.set()
        assert all("about pears" not in each.result(60) for each in asked), "what is found is the searcher's own"
    assert "about pears" in refresh(alice, "pears")
