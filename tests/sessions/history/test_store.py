"""Conversations through SQLite: what is saved comes back the same, change after change."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magistral_ui.chat.conversation import AssistantMessage, Conversation
from magistral_ui.chat.events import Notice, Usage
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Reply, ReplyOrigin
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.sessions.history import schema, store
from magistral_ui.sessions.history.database import DATABASE_FILE, History
from magistral_ui.sessions.history.image_store import ImageStore
from magistral_ui.sessions.history.schema import SCHEMA_VERSION, V1, connect, has_fts5, migrate
from magistral_ui.sessions.history.search import folded_message
from magistral_ui.sessions.history.store import StoredConversation, title_of

texts = st.text(st.characters(codec="utf-8"), max_size=40)
images = st.binary(max_size=20).map(lambda data: ImageFile(data, 2, 3, hashlib.sha256(data).hexdigest(), "a.png"))
replies = st.builds(
    Reply,
    reasoning=texts,
    answer=texts,
    reasoning_closed=st.booleans(),
    finish_reason=st.sampled_from([None, "stop", "length", "cancelled"]),
    failure=st.none() | st.just("out_of_memory"),
    failure_values=st.dictionaries(texts, st.integers() | st.floats(allow_nan=False) | texts, max_size=2),
    notices=st.lists(texts, max_size=2).map(tuple),
    usage=st.builds(Usage, prompt_tokens=st.integers(0, 9), total_seconds=st.floats(0, 9)),
    params=st.none() | st.builds(SamplingParams, seed=st.none() | st.integers(0, 99)),
)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("say"), texts, st.lists(images, max_size=2)),
        st.tuples(st.just("reply"), replies),
        st.tuples(st.just("edit"), st.integers(0, 9), texts),
        st.tuples(st.just("choose"), st.integers(0, 9)),
        st.tuples(st.just("keep"), st.integers(0, 9), st.sampled_from([None, True, False])),
        st.tuples(st.just("delete"), st.integers(0, 9)),
    ),
    max_size=12,
)


def changed(conversation: Conversation, change: tuple) -> Conversation:
    ids = list(conversation.messages)
    match change:
        case ("say", text, shown):
            return conversation.say(text, tuple(shown))
        case ("reply", reply) if conversation.last_user():
            return conversation.with_reply(reply)
        case (_, int(number), *rest) if ids:
            message = conversation.messages[ids[number % len(ids)]]
            if change[0] == "edit" and not isinstance(message, AssistantMessage):
                return conversation.edit(message.id, rest[0])
            if change[0] == "keep" and isinstance(message, AssistantMessage):
                return conversation.keep_reasoning(message.id, rest[0])
            if change[0] == "choose":
                return conversation.choose(message.id)
            if change[0] == "delete":
                return conversation.without(message.id)
    return conversation


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes, st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_conversation_comes_back_the_same(changes: list[tuple], saves: list[bool]) -> None:
    db, files = connect(None, writing=True), ImageStore(None)
    migrate(db)
    saved, conversation = None, Conversation()
    written: dict[int, ReplyOrigin] = {}
    for change, now in zip(changes, saves, strict=False):
        conversation = changed(conversation, change)
        if isinstance(last := conversation.messages.get(conversation.last_id), AssistantMessage):
            written[last.id] = ReplyOrigin(f"generation {last.id}", (Notice("loop_broken", {"count": last.id}),))
        if now:
            store.save(db, files, "me", "c", saved, StoredConversation(conversation, written))
            saved = conversation
    store.save(db, files, "me", "c", saved, StoredConversation(conversation, written))
    found = store.load(db, files, "me", "c")
    if not conversation.messages:
        assert found is None
    else:
        assert found is not None
        assert found.conversation == conversation
        assert found.written == {i: w for i, w in written.items() if i in conversation.messages}
        assert found.running is None
    assert store.load(db, files, "someone else", "c") is None
    rows = db.execute("SELECT text, reasoning, folded FROM messages").fetchall()
    assert all(kept == folded_message(text, reasoning) for text, reasoning, kept in rows)
    db.close()


def test_only_what_has_changed_is_written() -> None:
    db, files = connect(None, writing=True), ImageStore(None)
    migrate(db)
    one = Conversation().say("one").with_reply(Reply(answer="1"))
    store.save(db, files, "me", "c", None, StoredConversation(one))
    two = one.say("two")
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    store.save(db, files, "me", "c", one, StoredConversation(two))
    assert len({each for each in statements if each.startswith("INSERT INTO messages(")}) == 1
    db.close()


def test_another_visitors_conversation_is_never_written_to() -> None:
    db, files = connect(None, writing=True), ImageStore(None)
    migrate(db)
    store.save(db, files, "me", "c", None, StoredConversation(Conversation().say("mine")))
    with pytest.raises(ValueError):
        store.save(db, files, "you", "c", None, StoredConversation(Conversation().say("yours")))
    db.close()


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Hello", "Hello"),
        ("  two\n\nlines ", "two lines"),
        ("", ""),
        ("x" * 100, "x" * 79 + "…"),
        ("a " * 500, "a " * 39 + "a…"),
    ],
)
def test_a_title_is_the_beginning_of_the_first_message(said: str, title: str) -> None:
    assert title_of(Conversation().say(said).with_reply(Reply()).say("more")) == title


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_file_that_a_newer_version_has_written_is_left_alone(tmp_path: Path, journal: str) -> None:
    file = tmp_path / DATABASE_FILE
    with closing(connect(file, writing=True)) as db:
        migrate(db)
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        db.execute(f"PRAGMA journal_mode = {journal}")
    before = file.read_bytes()
    history = History(tmp_path)
    assert history.save_error is not None
    assert history.save_error.key == "history_newer"
    history.close()
    assert file.read_bytes() == before


VERSION_1 = f"""
{V1}
CREATE VIRTUAL TABLE words USING fts5(
  text, reasoning, content='messages', content_rowid='row', tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER words_added AFTER INSERT ON messages BEGIN
  INSERT INTO words(rowid, text, reasoning) VALUES (new.row, new.text, new.reasoning);
END;
CREATE TRIGGER words_removed AFTER DELETE ON messages BEGIN
  INSERT INTO words(words, rowid, text, reasoning) VALUES ('delete', old.row, old.text, old.reasoning);
END;
CREATE TRIGGER words_changed AFTER UPDATE OF text, reasoning ON messages BEGIN
  INSERT INTO words(words, rowid, text, reasoning) VALUES ('delete', old.row, old.text, old.reasoning);
  INSERT INTO words(rowid, text, reasoning) VALUES (new.row, new.text, new.reasoning);
END;
INSERT INTO conversations VALUES ('c', 'me', 'Ein Häuschen', 0, 0, 1.0, 2.0, NULL, '{{"v": 1, "last_id": 2, "chosen": {{}}}}');
INSERT INTO messages VALUES (1, 'c', 1, 'Ein Häuschen', '', '{{"role": "user", "message": {{"parent": null}}}}');
INSERT INTO messages VALUES (2, 'c', 2, 'So, it is.', 'Größe: 深い考え', '{{"role": "assistant", "message":
 {{"parent": 1, "reply": {{}}}}, "written": {{"reply": ""}}}}');
PRAGMA user_version = 1;
"""
"""What version 1 has left: with an index of words, which holds what was said."""


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    file = tmp_path / "history.sqlite3"
    with closing(connect(file, writing=True)) as db:
        if not has_fts5(db):
            pytest.skip("this SQLite has no FTS5")
        db.executescript(VERSION_1)
    return file


def test_a_file_of_version_1_is_copied_and_becomes_one_of_today(old_file: Path) -> None:
    with closing(connect(old_file, writing=True)) as db:
        migrate(db, old_file)
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        said = db.execute("SELECT id, text, reasoning, folded FROM messages ORDER BY id").fetchall()
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    assert said == [
        (1, "Ein Häuschen", "", "ein hauschen\n"),
        (2, "So, it is.", "Größe: 深い考え", "so, it is.\ngrosse: 深い考え"),
    ]
    assert not [name for name in names if name.startswith("words")]
    copy = old_file.with_name("history.sqlite3.version-1")
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT text FROM messages ORDER BY id").fetchall() == [("Ein Häuschen",), ("So, it is.",)]
        assert db.execute("SELECT count(*) FROM words WHERE words MATCH 'hauschen'").fetchone() == (1,)


def test_a_copy_that_cannot_be_made_leaves_the_old_file_as_it_was(old_file: Path) -> None:
    old_file.with_name("history.sqlite3.version-1.part").mkdir()
    with closing(connect(old_file, writing=True)) as db:
        with pytest.raises(OSError):
            migrate(db, old_file)
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize("number", range(1, SCHEMA_VERSION))
def test_a_migration_that_fails_leaves_a_whole_file_and_a_whole_copy(
    old_file: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full in the middle, or with a process that is killed there; then it is tried again."""
    broken = [*schema.MIGRATIONS]
    broken[number] += "INSERT INTO nowhere VALUES (1);"
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    for _ in range(2):
        with closing(connect(old_file, writing=True)) as db, pytest.raises(sqlite3.Error):
            migrate(db, old_file)
    monkeypatch.undo()
    kept = old_file.with_name("history.sqlite3.version-1")
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("SELECT count(*) FROM words WHERE words MATCH 'hauschen'").fetchone() == (1,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with closing(connect(kept, writing=True)) as db:
        migrate(db, kept)
        assert db.execute("SELECT count(*) FROM messages WHERE folded LIKE '%hauschen%'").fetchone() == (1,)
    with closing(connect(old_file, writing=True)) as db:
        migrate(db, old_file)
        assert db.execute("SELECT count(*) FROM messages WHERE folded LIKE '%hauschen%'").fetchone() == (1,)


def test_a_copy_that_found_no_room_leaves_nothing(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect

    def small(name: Any, **options: Any) -> sqlite3.Connection:
        db = real(name, **options)
        if str(name).endswith(".part"):
            db.execute("PRAGMA max_page_count = 2")
        return db

    with closing(connect(old_file, writing=True)) as db:
        monkeypatch.setattr(sqlite3, "connect", small)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            migrate(db, old_file)
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert not list(old_file.parent.glob("*.part*"))


def test_a_file_of_version_1_migrates_where_sqlite_has_no_fts5(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "has_fts5", lambda db: False)
    with closing(connect(old_file, writing=True)) as db:
        migrate(db, old_file)
        holds = [name for (name,) in db.execute("SELECT name FROM sqlite_master") if name.startswith("words_")]
    assert holds == []
    with closing(connect(old_file, writing=True)) as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (2,)


def test_all_writing_is_synchronous_and_deleting_is_secure(tmp_path: Path) -> None:
    db = connect(tmp_path / "history.sqlite3", writing=True)
    migrate(db)
    facts = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "secure_delete")
    }
    assert facts == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}
    db.close()
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "history.sqlite3", writing=False).execute("DELETE FROM conversations")
