"""Whose conversations are whose: logins and browsers, older files, and what it takes until everything of somebody is gone."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.chat.events import Answer
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.client import CLIENT, Client, hashed
from magistral_ui.errors import TooManyRequests
from magistral_ui.sessions.history import catalog, image_store
from magistral_ui.sessions.history.database import DATABASE_FILE
from magistral_ui.sessions.history.schema import SCHEMA_VERSION, V1, V2
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import TabState, Visitors
from magistral_ui.web.passwords import canonical, login_of
from tests.sessions.history.test_database import image

SHORT = [Answer("a")]


@contextmanager
def as_somebody(name: str, browser: str = "one") -> Iterator[None]:
    """What is done here is done by whoever came in by that name."""
    token = CLIENT.set(Client(browser=browser, login=login_of("name", canonical(name))))
    try:
        yield
    finally:
        CLIENT.reset(token)


def say(visitors: Visitors, text: str, place: TabState | None = None, **options: Any) -> TabState:
    there, session = visitors.begin(place or {})
    assert session.say(text, options.get("pictures", ()), SamplingParams()).generation.wait(60)
    session.save()
    visitors.listing(there)
    return there


def titles(visitors: Visitors, place: Any = None) -> list[str]:
    return sorted(entry.title for entry in visitors.listing(place or {}))


@pytest.mark.parametrize("other", ["ANN", " ann", "ａｎｎ", "Ann "])
def test_a_name_is_the_same_in_every_form(other: str) -> None:
    assert canonical(other) == canonical("Ann")
    assert canonical("Jose\u0301") == canonical("JOSÉ") != canonical("Jose")
    assert canonical("ann b") != canonical("annb")


def test_two_realms_have_nothing_in_common() -> None:
    assert login_of("name", "ann") != login_of("huggingface", "ann")
    assert login_of("huggingface", "name\0ann") != login_of("huggingface\0name", "ann").upper()


def test_after_a_restart_a_login_has_what_was_its_own(visiting: Any, opened: Any) -> None:
    visitors: Visitors = visiting(SHORT)
    with as_somebody("ann"):
        say(visitors, "of ann")
    visitors.close()
    visitors = visiting(SHORT, opened())
    with as_somebody("bob"):
        assert titles(visitors) == []
    with as_somebody("ann"):
        assert titles(visitors) == ["of ann"]


def old_file(folder: Path, version: int, visitor: str) -> None:
    """As version 1 (7211bf0) and version 2 have left it."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as db:
        db.create_function("folded_message", 2, lambda text, _: text)
        db.executescript(V1 + (V2 if version > 1 else ""))
        state = '{"v": 1, "last_id": 1, "chosen": {}}'
        db.execute("INSERT INTO conversations VALUES ('c', ?, 'of old', 0, 0, 1.0, 2.0, NULL, ?)", (visitor, state))
        said = '{"role": "user", "message": {"parent": null}}'
        db.execute("INSERT INTO messages(conversation, id, text, record) VALUES ('c', 1, 'of old', ?)", (said,))
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_is_copied_and_goes_to_whom_its_browser_proves_it(
    version: int, visiting: Any, opened: Any, tmp_path: Path
) -> None:
    secret = "s" * 43
    old_file(tmp_path / "data", version, hashed(secret))
    visitors: Visitors = visiting(SHORT, opened())
    assert titles(visitors, {"visitor": secret}) == ["of old"], "without names it is the browser's, as ever"
    with closing(sqlite3.connect(tmp_path / "data" / f"{DATABASE_FILE}.version-{version}")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
        assert db.execute("SELECT text FROM messages").fetchone() == ("of old",)
    with as_somebody("bob"):
        assert titles(visitors) == []
        assert titles(visitors, {"visitor": "another" * 7}) == []
    with as_somebody("ann"):
        place, session = visitors.open({"visitor": secret, "conversation": "c"})
        assert place == {"conversation": "c"}
        assert sorted(session.conversation.messages) == [1]
    with as_somebody("bob"):
        visitors.open({"visitor": secret, "conversation": "c"})
        assert titles(visitors) == []
    assert visitors.find({"visitor": secret, "conversation": "c"}) is None, "the browser alone opens nothing any more"
    assert SCHEMA_VERSION == 3


def test_two_who_claim_at_once_are_one_owner(visiting: Any, opened: Any) -> None:
    """Whoever comes first has all of it, and the other one nothing, whatever is replayed later."""
    visitors: Visitors = visiting(SHORT, opened())
    place = say(visitors, "one")
    say(visitors, "two", place)
    names = [f"person {number}" for number in range(8)]

    def claim(name: str) -> None:
        with as_somebody(name):
            visitors.open(place)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(claim, names))
        list(pool.map(claim, reversed(names)))
    had: list[list[str]] = []
    for name in names:
        with as_somebody(name):
            had.append(titles(visitors))
    assert sorted(had, key=len)[-1] == ["one", "two"]
    assert sum(map(len, had)) == 2
    assert visitors.find(place) is None


def test_what_cannot_be_claimed_now_is_claimed_the_next_time(
    visiting: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = opened()
    visitors: Visitors = visiting(SHORT, kept)
    place = say(visitors, "before")
    with as_somebody("ann"):
        with monkeypatch.context() as full:
            full.setattr(catalog, "hand_over", fails)
            there, _ = visitors.open(place)
        assert there["visitor"] == place["visitor"], "the way back stays"
        there, _ = visitors.open(there)
        assert "visitor" not in there
        assert titles(visitors) == ["before"]


def fails(*_: object, **__: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def exhaust(visitors: Visitors) -> None:
    """More newcomers than may come."""
    for _ in range(10):
        visitors.open()


def test_who_forgets_is_let_in_again_however_many_newcomers_there_are(visiting: Any) -> None:
    visitors: Visitors = visiting(SHORT, limits=Limits(visitors_per_minute_per_address=3))
    place = say(visitors, "one")
    with pytest.raises(TooManyRequests):
        exhaust(visitors)
    clean, after, _ = visitors.begin_anew(place)
    assert clean
    assert after["visitor"] != place["visitor"]
    assert visitors.begin_anew(place)[0], "another tab asks for the same"
    with pytest.raises(TooManyRequests):
        visitors.begin_anew({"visitor": "made up"})


def test_two_tabs_forget_at_once(visiting: Any) -> None:
    visitors: Visitors = visiting(SHORT)
    place = say(visitors, "one")
    with ThreadPoolExecutor(4) as tabs:
        answers = list(tabs.map(visitors.begin_anew, [place] * 4))
    assert [clean for clean, _, _ in answers] == [True] * 4
    assert titles(visitors, place) == []


def test_a_login_continues_after_everything_was_forgotten(visiting: Any, opened: Any) -> None:
    kept = opened()
    visitors: Visitors = visiting(SHORT, kept)
    with as_somebody("ann"):
        first = say(visitors, "one")
        for _ in range(2):
            assert visitors.begin_anew(first)[0]
            assert titles(visitors) == []
            assert visitors.find(first) is None
            say(visitors, "two")
            assert titles(visitors) == ["two"]
        assert visitors.forget({})
    with kept._connection() as db:
        for table in ("conversations", "messages", "logins", "forgotten"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_an_image_that_cannot_be_deleted_is_told_and_deleted_later(
    visiting: Any, opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = opened()
    visitors: Visitors = visiting(SHORT, kept)
    place = say(visitors, "one", pictures=(image(),))
    files = tmp_path / "data" / "pictures"
    assert list(files.glob("*/*"))
    with monkeypatch.context() as locked:
        locked.setattr(image_store, "_unlinked", lambda path: False)
        assert not visitors.forget(place)
        assert not visitors.forget(place), "the second time it is not gone either"
    kept.purge()
    assert not list(files.glob("*/*"))
    assert visitors.forget(place)


def test_a_copy_that_cannot_be_deleted_is_told_and_deleted_later(visiting: Any, opened: Any, tmp_path: Path) -> None:
    kept = opened()
    visitors: Visitors = visiting(SHORT, kept)
    place = say(visitors, "one")
    copy = tmp_path / "data" / f"{DATABASE_FILE}.version-2"
    copy.mkdir()  # a file that the system does not let go of
    assert not visitors.forget(place)
    copy.rmdir()
    copy.write_bytes(b"x")
    kept.purge()
    assert not copy.exists()


@pytest.mark.parametrize("name", ["", "ann"])
@pytest.mark.parametrize("failing", [("forget",), ("forget", "mark")])
def test_what_could_not_be_deleted_before_the_end_is_deleted_by_the_next_process(
    name: str, failing: tuple[str, ...], visiting: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not name and "mark" in failing:
        pytest.skip("nothing at all could be written, and nobody is there who writes more")
    visitors: Visitors = visiting(SHORT, opened())
    token = CLIENT.set(Client(login=login_of("name", name) if name else ""))
    try:
        place = say(visitors, "old")
        with monkeypatch.context() as full:
            full.setattr(catalog, "forget", fails)
            if "mark" in failing:
                full.setattr(catalog, "mark_forgotten", fails)
            clean, place, _ = visitors.begin_anew(place)
            assert not clean
            assert titles(visitors, place) == [], "nobody opens it any more"
            place = say(visitors, "new", place)
            visitors.close()
        kept = opened()
        visitors = visiting(SHORT, kept)
        assert titles(visitors, place) == ["new"]
        with kept._connection() as db:
            assert db.execute("SELECT title FROM conversations").fetchall() == [("new",)]
            assert db.execute("SELECT count(*) FROM forgotten").fetchone() == (0,)
    finally:
        CLIENT.reset(token)
