"""The history through visitors and their sessions: kept, taken up again, found, deleted, and nobody else's."""

import hashlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.chat.conversation import AssistantMessage, UserMessage
from magistral_ui.chat.events import Answer, Finished, Reasoning, Reclassified
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import may_continue
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.client import CLIENT, Client, hashed
from magistral_ui.errors import HistoryUnusable, NotReady
from magistral_ui.sessions import session_store
from magistral_ui.sessions.history import catalog, store
from magistral_ui.sessions.history import search as history_search
from magistral_ui.sessions.history.database import DATABASE_FILE, History
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import TabState, Visitors
from tests.scripted_engine import Pause

SHORT = [Reasoning("hm"), Answer("yes")]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search is cut short, however slow the machine is; what happens then is tested with a limit of its own."""
    monkeypatch.setattr(History.search, "__defaults__", (60.0,))


def say(session: Session, text: str, images: tuple[ImageFile, ...] = ()) -> None:
    assert session.say(text, images, SamplingParams()).generation.wait(60)


def image(data: bytes = b"picture") -> ImageFile:
    return ImageFile(data, 2, 3, hashlib.sha256(data).hexdigest(), "a.png")


def texts(session: Session) -> list[str]:
    return [m.text if isinstance(m, UserMessage) else m.reply.answer for m in session.conversation.path()]


def images_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("pictures/*/*")]


def test_a_conversation_is_there_after_a_restart(visiting: Any, opened: Any) -> None:
    visitors: Visitors = visiting(SHORT)
    place, session = visitors.open()
    say(session, "one", (image(),))
    say(session, "two")
    conversation = session.conversation
    visitors.close()
    again: Visitors = visiting(SHORT, opened())
    same, found = again.open(place)
    assert same == place
    assert found.conversation == conversation
    assert again.open({"visitor": place["visitor"]})[1] is found, "a new tab shows the latest"
    say(found, "three")
    assert texts(found) == ["one", "yes", "two", "yes", "three", "yes"]


def test_the_secret_itself_is_nowhere_on_disk(visiting: Any, tmp_path: Path) -> None:
    visitors: Visitors = visiting(SHORT)
    place, session = visitors.open()
    say(session, "one")
    visitors.close()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or place["visitor"].encode() not in file.read_bytes()


def test_a_turn_is_on_disk_before_its_reply_begins(visiting: Any, tmp_path: Path) -> None:
    seen: list[Any] = []

    def script(request: Any) -> Any:
        with sqlite3.connect(tmp_path / "data" / DATABASE_FILE) as db:
            seen.append(db.execute("SELECT text FROM messages").fetchall())
            seen.append(db.execute("SELECT count(*) FROM drafts").fetchone())
        db.close()
        return SHORT

    visitors: Visitors = visiting(script)
    _, session = visitors.open()
    say(session, "one")
    assert seen == [[("one",)], (1,)]


def test_what_was_written_when_the_process_died_is_there_marked_as_cut(
    visiting: Any, opened: Any, tmp_path: Path
) -> None:
    visitors: Visitors = visiting([Reasoning("hm "), Reasoning("hm"), Answer("so "), Answer("far"), Pause(60)])
    place, session = visitors.open()
    running = session.say("one", (), SamplingParams(seed=7))
    while len(running.generation) < 4:
        running.generation.wait(0.01)
    for _ in range(3):  # piece by piece
        session.save()
        assert visitors.listing(place)  # waits for what is being written
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (tmp_path / "data").iterdir():  # as it would be found after kill -9
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    session.stop()
    again: Visitors = visiting(SHORT, opened(copy))
    found = again.find(place)
    assert found is not None
    assert found.running is None
    last = found.conversation.last()
    assert isinstance(last, AssistantMessage)
    assert (last.reply.reasoning, last.reply.answer) == ("hm hm", "so far")
    assert (last.reply.finish_reason, last.reply.notices) == ("cancelled", ("cut_off",))
    assert (last.reply.usage.reasoning_tokens, last.reply.usage.answer_tokens) == (2, 2)
    assert last.reply.params is not None
    assert last.reply.params.seed == 7
    assert may_continue(last.reply)
    assert found.resume(last.id, SamplingParams()).generation.wait(60)
    assert texts(found) == ["one", "so faryes"]
    say(found, "two")
    again.close()
    third: Visitors = visiting(SHORT, opened(copy))
    assert texts(third.open(place)[1]) == ["one", "so faryes", "two", "yes"]


@pytest.mark.parametrize("before", [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)])
def test_what_turned_out_to_be_reasoning_is_so_when_the_process_died(
    visiting: Any, opened: Any, tmp_path: Path, before: tuple[int, ...]
) -> None:
    """It was kept after so many of its events, and then at the end."""
    steps = [Answer("\nso "), Answer("far\n"), Reclassified(), Answer("Five"), Answer(".")]
    visitors: Visitors = visiting([piece for step in steps for piece in (step, Pause(60))])
    place, session = visitors.open()
    generation = session.say("one", (), SamplingParams(seed=7)).generation
    for count in range(1, len(steps) + 1):
        while len(generation) < count:
            generation.wait(0.01)
        if count in before or count == len(steps):
            for _ in range(2):
                session.save()
                assert visitors.listing(place)  # waits for what is being written
        generation.answer_now()  # ends the pause
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (tmp_path / "data").iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    session.stop()
    found = visiting(SHORT, opened(copy)).find(place)
    assert found is not None
    last = found.conversation.last()
    assert isinstance(last, AssistantMessage)
    assert (last.reply.reasoning, last.reply.answer) == ("so far\n", "Five.")
    assert (last.reply.usage.reasoning_tokens, last.reply.usage.answer_tokens) == (2, 2)
    assert last.reply.reasoning_closed


def test_a_reply_that_nobody_watched_is_kept(visiting: Any, opened: Any) -> None:
    visitors: Visitors = visiting([Reasoning("hm"), Pause(0.2), Answer("yes")])
    place, session = visitors.open()
    running = session.say("one", (), SamplingParams())
    assert running.generation.wait(60)
    visitors.close()  # nobody has looked at the session since
    again: Visitors = visiting(SHORT, opened())
    assert texts(again.open(place)[1]) == ["one", "yes"]


def test_a_request_that_the_engine_refuses_leaves_no_trace(visiting: Any) -> None:
    visitors: Visitors = visiting(SHORT)
    place, session = visitors.open()

    def refuse(request: Any) -> Any:
        raise NotReady

    session._engine.submit = refuse  # type: ignore[method-assign]
    with pytest.raises(NotReady):
        session.say("one", (), SamplingParams())
    session.save()
    assert visitors.listing(place) == []


def test_a_session_that_was_dropped_from_memory_comes_back(visiting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    visitors: Visitors = visiting(SHORT, limits=Limits(visitors=1))
    monkeypatch.setattr(session_store, "GRACE_SECONDS", 0.0)
    first, session = visitors.open()
    say(session, "one")
    written(visitors, first, session)
    visitors.begin(first)
    assert len(visitors) == 1
    found = visitors.find(first)
    assert found is not None
    assert found is not session
    assert texts(found) == ["one", "yes"]


def test_nothing_leaks_between_visitors(visiting: Any) -> None:
    visitors: Visitors = visiting(SHORT)
    mine, session = visitors.open()
    say(session, "my secret")
    theirs, other = visitors.open()
    say(other, "hello")
    stolen = {"visitor": theirs["visitor"], "conversation": mine["conversation"]}
    id = mine["conversation"]
    visitors.listing(theirs)  # what is written is written
    assert visitors.find(stolen) is None
    assert [entry.title for entry in visitors.listing(theirs)] == ["hello"]
    assert found_by(visitors, theirs, "secret") == []
    assert not visitors.change(theirs, id, catalog.rename, "stolen")
    assert not visitors.change(theirs, id, catalog.pin, True)
    assert not visitors.remove(theirs, id)
    assert not visitors.change(theirs, id, catalog.restore)
    assert visitors.forget(theirs)
    assert [entry.title for entry in visitors.listing(mine)] == ["my secret"]


def place_with(visitors: Visitors, *said: str) -> TabState:
    place, session = visitors.open()
    for text in said:
        place, session = visitors.begin(place)
        say(session, text)
    for each in visitors.sessions():
        each.save()
    return place


def written(visitors: Visitors, place: TabState, session: Session) -> None:
    """Have all of the session on disk."""
    session.save()
    visitors.listing(place)  # what is written is written


def test_the_list_has_the_latest_first_and_pinned_ones_above(visiting: Any) -> None:
    visitors: Visitors = visiting(SHORT)
    place = place_with(visitors, "one", "two", "three")
    listed = visitors.listing(place)
    assert [entry.title for entry in listed] == ["three", "two", "one"]
    assert visitors.change(place, listed[2].id, catalog.pin, True)
    assert visitors.change(place, listed[1].id, catalog.rename, "  a  better\nname ")
    assert not visitors.change(place, listed[1].id, catalog.rename, " \n")
    assert [(e.title, e.pinned) for e in visitors.listing(place)] == [
        ("one", True),
        ("three", False),
        ("a better name", False),
    ]
    assert visitors.change(place, listed[2].id, catalog.pin, False)
    assert not any(entry.pinned for entry in visitors.listing(place))


def test_a_name_that_was_given_stays(visiting: Any) -> None:
    visitors: Visitors = visiting(SHORT)
    place = place_with(visitors, "one")
    visitors.change(place, place["conversation"], catalog.rename, "mine")
    session = visitors.find(place)
    assert session is not None
    say(session, "two")
    session.save()
    assert [entry.title for entry in visitors.listing(place)] == ["mine"]


def found_by(visitors: Visitors, place: TabState, query: str) -> list[str]:
    return [entry.title for entry in visitors.search(place, query).result(60).entries]


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("apple", ["Apples and pears"]),
        ("APPLE pear", ["Apples and pears"]),
        ("apple zebra", []),
        ("ete", ["L’Été à la mer"]),
        ("深い", ["とても深い考え"]),
        ("考", ["とても深い考え"]),
        ("ppl EARS", ["Apples and pears"]),
        ("zebra hm", []),
        ("hm", ["とても深い考え", "L’Été à la mer", "Apples and pears"]),
        ('"; DROP', []),
        ("NEAR( * ^", []),
        ("", ["とても深い考え", "L’Été à la mer", "Apples and pears"]),
    ],
)
def test_search_finds_words_in_text_and_reasoning(
    visiting: Any, opened: Any, query: str, found: list[str], on_disk: bool
) -> None:
    history = opened() if on_disk else opened(None)
    visitors: Visitors = visiting([Reasoning("hm, a thought"), Answer("yes")], history)
    place = place_with(visitors, "Apples and pears", "L’Été à la mer", "とても深い考え")
    assert found_by(visitors, place, query) == found


def test_a_search_shows_where_it_was_found(visiting: Any) -> None:
    visitors: Visitors = visiting([Reasoning("long ago " * 30 + "the needle " + "and hay " * 30), Answer("yes")])
    place = place_with(visitors, "one")
    (entry,) = visitors.search(place, "needle").result(60).entries
    assert "the needle and hay" in entry.excerpt
    assert len(entry.excerpt) < 200


@pytest.mark.parametrize("before", ["한국어 글 ", "ﬁne ﬀ ", "Straße ", "é", "ガ", "😀"])
def test_an_excerpt_is_at_its_place_where_folding_changes_lengths(visiting: Any, before: str) -> None:
    visitors: Visitors = visiting([Reasoning(before * 700 + "the NEEDLE, it is " + before * 300), Answer("yes")])
    place = place_with(visitors, "one")
    (entry,) = visitors.search(place, "needle").result(60).entries
    assert "the NEEDLE, it is" in entry.excerpt


def test_an_excerpt_is_of_the_answer_or_of_the_reasoning_and_not_of_both(visiting: Any) -> None:
    visitors: Visitors = visiting([Reasoning("a thought"), Answer("the needle")])
    place = place_with(visitors, "one")
    (entry,) = visitors.search(place, "needle").result(60).entries
    assert entry.excerpt == "the needle"


def test_a_search_that_takes_too_long_tells_what_it_has_found(opened: Any, visiting: Any) -> None:
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history)
    place = place_with(visitors, "one", "two")
    found = history.search(hashed(place["visitor"]), "yes", seconds=0.0)
    assert (found.entries, found.complete) == ((), False)
    assert history.search(hashed(place["visitor"]), "yes").complete


def test_a_later_search_of_the_same_visitor_ends_the_one_before(opened: Any, visiting: Any) -> None:
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history)
    place = place_with(visitors, "one", "two", "three")
    looked: list[str] = []

    def reading(*_: Any) -> Any:
        if not looked:
            looked.append("")
            later.extend(history.search(hashed(place["visitor"]), "yes").entries)
        return real(*_)

    later: list[Any] = []
    real = history_search._place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_search, "_place", reading)
        first = history.search(hashed(place["visitor"]), "yes")
    assert [entry.title for entry in later] == ["three", "two", "one"]
    assert ([entry.title for entry in first.entries], first.complete) == (["three"], False)


def test_one_address_that_searches_does_not_keep_others_from_searching(visiting: Any, opened: Any) -> None:
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history)
    mine, theirs = place_with(visitors, "one"), place_with(visitors, "two")
    go_on, held = threading.Event(), threading.Semaphore(0)
    real = history.search

    def slow(visitor: str, query: str) -> Any:
        if visitor == hashed(theirs["visitor"]):
            held.release()
            assert go_on.wait(60)
        return real(visitor, query)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "search", slow)
        asked = CLIENT.set(Client("198.51.100.1"))
        waiting = [visitors.search(theirs, "yes") for _ in range(20)]
        CLIENT.reset(asked)
        for _ in range(2):
            assert held.acquire(timeout=60), "both threads are theirs by now"
        asked = CLIENT.set(Client("198.51.100.2"))
        ours = visitors.search(mine, "yes")
        CLIENT.reset(asked)
        go_on.set()
        assert [entry.title for entry in ours.result(60).entries] == ["one"]
        for each in waiting:
            each.result(60)


def test_the_copy_of_an_older_file_goes_with_what_is_forgotten_and_after_a_week(
    visiting: Any, opened: Any, tmp_path: Path
) -> None:
    visitors: Visitors = visiting(SHORT)
    place = place_with(visitors, "one")
    copies = [tmp_path / "data" / f"{DATABASE_FILE}.version-{number}" for number in (1, 2)]
    for copy in copies:
        copy.write_bytes(b"x")
    os.utime(copies[0], (time.time() - 8 * 86_400,) * 2)
    assert visitors._history is not None
    visitors._history.purge()
    assert [copy.exists() for copy in copies] == [False, True]
    visitors.forget(place)
    assert not copies[1].exists()


def test_deleting_can_be_undone_for_a_while(visiting: Any, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history)
    place = place_with(visitors, "one", "two")
    assert visitors.remove(place, place["conversation"])
    assert not visitors.remove(place, place["conversation"])
    assert visitors.find(place) is None
    assert [entry.title for entry in visitors.listing(place)] == ["one"]
    assert found_by(visitors, place, "two") == []
    assert visitors.change(place, place["conversation"], catalog.restore)
    found = visitors.find(place)
    assert found is not None
    assert texts(found) == ["two", "yes"]
    visitors.remove(place, place["conversation"])
    history.purge(reprieve=-1.0)
    assert not visitors.change(place, place["conversation"], catalog.restore)


def test_deleting_stops_what_runs_and_nothing_is_written_any_more(visiting: Any) -> None:
    visitors: Visitors = visiting([Answer("a"), Pause(60)])
    place, session = visitors.open()
    running = session.say("one", (), SamplingParams())
    assert visitors.remove(place, place["conversation"])
    assert running.generation.wait(60)
    session.save()
    assert visitors.listing(place) == []


def test_forgetting_deletes_rows_words_images_and_free_pages(visiting: Any, tmp_path: Path) -> None:
    visitors: Visitors = visiting([Reasoning("hm, xylophone"), Answer("quetzalcoatl"), Pause(60)])
    place, session = visitors.open()
    running = session.say("zanzibar", (image(),), SamplingParams())
    while len(running.generation) < 2:
        running.generation.wait(0.01)
    session.save()
    visitors.listing(place)
    assert len(images_in(tmp_path)) == 1
    assert visitors.forget(place)
    assert running.generation.wait(60)
    session.save()
    assert visitors.find(place) is None
    assert visitors.open(place)[0]["visitor"] != place["visitor"], "even the hash is forgotten"
    assert images_in(tmp_path) == []
    for file in (tmp_path / "data").iterdir():
        if file.is_file():
            content = file.read_bytes().lower()
            for word in (b"xylophone", b"quetzalcoatl", b"zanzibar", hashed(place["visitor"]).encode()):
                assert word not in content, file


def test_an_image_is_kept_once_and_as_long_as_someone_shows_it(visiting: Any, opened: Any, tmp_path: Path) -> None:
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history)
    mine, session = visitors.open()
    say(session, "one", (image(), image(b"other")))
    theirs, other = visitors.open()
    say(other, "two", (image(),))
    visitors.listing(mine)
    assert len(images_in(tmp_path)) == 2
    visitors.forget(mine)
    assert images_in(tmp_path) == [image().digest]
    visitors.remove(theirs, theirs["conversation"])
    history.purge(reprieve=-1.0)
    assert images_in(tmp_path) == []


def test_an_image_that_someone_deleted_by_hand_takes_nothing_with_it(
    visiting: Any, opened: Any, tmp_path: Path
) -> None:
    visitors: Visitors = visiting(SHORT)
    place, session = visitors.open()
    say(session, "one", (image(),))
    visitors.close()
    for path in tmp_path.rglob("pictures/*/*"):
        path.unlink()
    again: Visitors = visiting(SHORT, opened())
    first = again.open(place)[1].conversation.path()[0]
    assert isinstance(first, UserMessage)
    assert (first.text, first.images) == ("one", ())


def test_images_that_nobody_shows_are_swept_away(opened: Any, tmp_path: Path) -> None:
    orphan = tmp_path / "data" / "pictures" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"x")
    part = orphan.with_suffix(".part")
    part.write_bytes(b"x")
    opened().read([], catalog.listing, "me")
    assert not orphan.exists()
    assert not part.exists()


@pytest.mark.parametrize(("days", "kept"), [(1, []), (3, ["one"]), (None, ["one"])])
def test_conversations_are_kept_for_as_long_as_was_said(
    visiting: Any, opened: Any, days: int | None, kept: list[str]
) -> None:
    visitors: Visitors = visiting(SHORT)
    place = place_with(visitors, "one")
    visitors._history.writer.wait(lambda db: db.execute("UPDATE conversations SET changed = changed - 2 * 86400"), None)  # type: ignore[union-attr]
    visitors.close()
    history: History = opened(keep_days=days)
    listed = history.read([], catalog.listing, hashed(place["visitor"]))
    assert [entry.title for entry in listed] == kept


def test_zero_days_keep_nothing_on_disk(visiting: Any, opened: Any, tmp_path: Path) -> None:
    visitors: Visitors = visiting(SHORT, opened(keep_days=0))
    place = place_with(visitors, "one", "two")
    assert [entry.title for entry in visitors.listing(place)] == ["two", "one"]
    assert visitors.save_error is None
    visitors.close()
    assert not (tmp_path / "data").exists()


def test_in_memory_the_list_holds_what_the_sessions_hold(
    visiting: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_store, "GRACE_SECONDS", 0.0)
    visitors: Visitors = visiting(SHORT, opened(None), limits=Limits(visitors=2))
    place: Any = None
    for text in ("one", "two", "three"):
        place, session = visitors.begin(place)
        say(session, text)
        written(visitors, place, session)
    assert [entry.title for entry in visitors.listing(place)] == ["three", "two"]


def test_a_folder_that_another_process_uses_is_left_alone(opened: Any, visiting: Any) -> None:
    opened()
    visitors: Visitors = visiting(SHORT, opened())
    assert visitors.save_error is not None
    assert visitors.save_error.key == "history_in_use"
    place = place_with(visitors, "one")
    assert [entry.title for entry in visitors.listing(place)] == ["one"], "the chat goes on unsaved"


def test_a_folder_that_cannot_be_written_is_told(opened: Any, visiting: Any, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    visitors: Visitors = visiting(SHORT, opened())
    assert visitors.save_error is not None
    assert visitors.save_error.key == "history_failed"
    place_with(visitors, "one")
    assert (tmp_path / "data").read_text() == "a file"


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be taken for one" * 30, b"\0" * 5000])
def test_a_damaged_file_is_told_and_left_as_it_is(opened: Any, visiting: Any, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / DATABASE_FILE).write_bytes(content)
    visitors: Visitors = visiting(SHORT, opened())
    assert visitors.save_error is not None
    assert visitors.save_error.key == "history_broken"
    place_with(visitors, "one")
    assert (folder / DATABASE_FILE).read_bytes() == content


def test_on_a_full_disk_the_chat_continues_unsaved_and_is_saved_when_there_is_room(visiting: Any, opened: Any) -> None:
    history: History = opened()
    visitors: Visitors = visiting([Answer("x" * 100_000)], history)
    place, session = visitors.open()
    say(session, "one")
    visitors.listing(place)
    pages = history.writer.wait(lambda db: db.execute("PRAGMA page_count").fetchone()[0], 0)
    history.writer.wait(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone(), None)
    say(session, "two" + "y" * 100_000)
    assert len(session.conversation.path()) == 4
    assert history.save_error is not None
    assert history.save_error.key == "history_disk_full"
    history.writer.wait(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone(), None)
    for _ in range(3):
        session.save()
        visitors.listing(place)
    assert history.save_error is None
    visitors.close()
    again: Visitors = visiting(SHORT, opened())
    assert len(again.open(place)[1].conversation.path()) == 4


def test_on_a_full_disk_no_conversation_is_dropped_from_memory(
    visiting: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_store, "GRACE_SECONDS", 0.0)
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history, limits=Limits(visitors=3))
    history.writer.wait(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone(), None)
    places = []
    for number in range(6):
        place, session = visitors.open()
        say(session, f"{number} {'x' * 10_000}")
        session.save()
        places.append(place)
    assert history.save_error is not None
    assert all(visitors.find(place) is not None for place in places)
    history.writer.wait(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone(), None)
    for _ in range(3):
        for session in visitors.sessions():
            session.save()
        visitors.listing(places[0])
    visitors.open()
    assert len(visitors) == 3, "what is saved may go"
    assert all(len(found.conversation.path()) == 2 for place in places if (found := visitors.find(place)))


def test_a_thousand_conversations_are_listed_with_one_question(visiting: Any, opened: Any) -> None:
    history: History = opened()

    def fill(db: sqlite3.Connection) -> None:
        values = [(f"c{n}", "me", f"title {n}", n, n, "{}") for n in range(1_000)]
        db.executemany(
            "INSERT INTO conversations(id, visitor, title, created, changed, state) VALUES (?,?,?,?,?,?)", values
        )

    history.writer.wait(fill, None)
    asked: list[str] = []
    with history._connection() as db:
        db.set_trace_callback(asked.append)
        assert len(catalog.listing(db, "me")) == 1_000
        plan = " ".join(str(row) for row in db.execute(f"EXPLAIN QUERY PLAN {asked[0]}"))
    assert len(asked) == 1
    assert "conversations_of_visitor" in plan


def test_saving_is_not_taken_for_looking(visiting: Any) -> None:
    visitors: Visitors = visiting([Answer("a"), Pause(0.3), Finished("stop")])
    _, session = visitors.open()
    running = session.say("one", (), SamplingParams())
    before = running.generation._looked_at
    session.save()
    assert running.generation._looked_at == before
    assert running.generation.wait(60)


def test_half_a_surrogate_pair_stops_nothing(visiting: Any, opened: Any) -> None:
    visitors: Visitors = visiting([Reasoning("a\ud800"), Answer("b\udfff")])
    place, session = visitors.open()
    say(session, "one \ud800")
    assert visitors.change(place, place["conversation"], catalog.rename, "name \ud800")
    assert found_by(visitors, place, "\ud800x") == []
    assert visitors.save_error is None
    visitors.close()
    again: Visitors = visiting(SHORT, opened())
    assert texts(again.open(place)[1]) == ["one ?", "b?"]
    assert [entry.title for entry in again.listing(place)] == ["name ?"]


def test_what_was_on_its_way_when_everything_was_forgotten_is_not_kept(visiting: Any, opened: Any) -> None:
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history)
    place, session = visitors.open()
    say(session, "one")
    session.save()
    documents = visitors.documents(place)
    visitor = hashed(place["visitor"])
    kept = history.read(None, store.load, history.images, visitor, place["conversation"])
    assert kept is not None
    assert visitors.forget(place)
    with pytest.raises(HistoryUnusable):
        history.import_documents(visitor, {"new": documents[0]})  # a file that was being read meanwhile
    assert visitors._add(visitor, place["conversation"], kept) is None, "another tab had just read it"
    assert visitors.find(place) is None
    assert history.read(-1, catalog.count, visitor) == 0
    assert visitors.open(place)[0]["visitor"] != place["visitor"]


def test_what_could_not_be_deleted_is_deleted_later(
    visiting: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    history: History = opened()
    visitors: Visitors = visiting(SHORT, history)
    place, session = visitors.open()
    say(session, "one")
    session.save()
    visitor = hashed(place["visitor"])
    assert history.read(False, catalog.knows, visitor)
    with monkeypatch.context() as full:

        def fails(*_: object) -> None:
            raise sqlite3.OperationalError("disk full")

        full.setattr(catalog, "forget", fails)
        assert not visitors.forget(place)
    assert history.read(False, catalog.knows, visitor)
    assert visitors.open(place)[0]["visitor"] != place["visitor"], "what is still on disk is nobody's any more"
    history.purge()
    assert not history.read(True, catalog.knows, visitor)


def test_reading_along_waits_for_nobody_who_works_with_a_session(visiting: Any) -> None:
    visitors: Visitors = visiting([Pause(60)])
    busy = visitors.open()[1]
    running = visitors.open()[1].say("one", (), SamplingParams())
    found: list[object] = []
    with busy._lock:
        reader = threading.Thread(
            target=lambda: found.append(visitors.running_reply(running.generation.id)), daemon=True
        )
        reader.start()
        reader.join(60)
        assert found == [(running.generation, None)]
