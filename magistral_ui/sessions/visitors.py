"""Finds a visitor's conversations by their login or by the state of their browser tab; it does not know the page."""

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from magistral_ui.chat.reply import Reply
from magistral_ui.client import CLIENT, NO_CLIENT, Client, OneTimeTokens, hashed
from magistral_ui.engines.base import Engine
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import HistoryUnusable, ImportRefused, Message
from magistral_ui.export.document import Document
from magistral_ui.sessions.admission import Admission
from magistral_ui.sessions.fair_queue import FairQueue, ImageQueue
from magistral_ui.sessions.history import catalog, store
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.history.recorder import HistoryRecorder
from magistral_ui.sessions.history.search import ConversationSummary, SearchResult
from magistral_ui.sessions.history.store import StoredConversation
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.session_store import Autosave, OpenSession, SessionStore

TabState = dict[str, str]
"""The place of a browser tab: `visitor`, the secret that identifies the visitor, and `conversation`, the one it shows.

Where visitors log in with names, the login identifies them, and there is no secret.
"""
MAX_QUEUED_SEARCHES = 100
"""Searches from one address; all but a visitor's latest end as soon as their turn comes."""
MAX_ID_LENGTH = 128
"""Characters of a secret or an id; longer ones are ignored."""


class Visitors:
    """All visitors of this process, with their sessions in memory and their conversations in the history.

    A secret is 256 random bits: whoever knows it is the visitor, unless visitors log in with names. Then it only proves that
    earlier conversations in the same browser are the client's, who becomes their owner.

    A visitor's id is the hash of their secret, which itself is not stored, or the id that the history has for their login.
    The empty id stands for nobody, who has no conversations.
    """

    def __init__(self, engine: Engine, limits: Limits | None = None, history: History | None = None) -> None:
        """Without a `history`, a conversation lasts as long as its session in memory."""
        self.engine, self.limits, self._history = engine, limits or Limits(), history or History()
        self.tickets = OneTimeTokens()
        self.admission = Admission(self.limits)
        self.images = ImageQueue(self.limits)
        self._searches = FairQueue("search", waiting=MAX_QUEUED_SEARCHES)
        self._open = SessionStore(self.limits)
        self._autosave = Autosave(self.sessions, self._history, self.admission.stop_unattended)

    def find(self, place: object) -> Session | None:
        """The session at `place`; None if the visitor is not known or has no such conversation."""
        return self._find(self._visitor(place), _conversation(place))

    def open(self, place: object = None) -> tuple[TabState, Session]:
        """The session at `place`, and the place that the browser must keep. Clients cannot choose secrets or ids.

        Without a conversation in `place`, this is the visitor's latest one; if the one in `place` is gone, an empty one.
        """
        visitor, secret = self._visitor(place), _secret(place)
        if CLIENT.get().login:
            secret = "" if self._claim(secret) else secret  # what cannot be claimed now is claimed the next time
        elif not self._knows(visitor):
            self.admission.check_new_visitor()
            return self._begin(secrets.token_urlsafe(32))
        session = self._find(visitor, _conversation(place) or self._latest(visitor))
        return (_place(secret, session.id), session) if session else self._begin(secret)

    def begin(self, place: object) -> tuple[TabState, Session]:
        """An empty conversation of the visitor at `place`: the current one, if nothing has been said in it yet."""
        there, session = self.open(place)
        return (there, session) if not session.snapshot()[0].messages else self._begin(_secret(there))

    def temporary_session(self, client: Client = NO_CLIENT) -> Session:
        """A session that is not kept, for one API call. All calls of a client count towards the same limits."""
        visitor, key = client.login or client.browser[:32], secrets.token_urlsafe(16)
        admission = partial(self.admission.reply, visitor, client.address)
        return Session(self.engine, self.limits, key=_engine_key(visitor, key), admission=admission)

    def running_reply(self, generation: str) -> tuple[Generation, Reply | None] | None:
        """The running reply with that id, and the reply that it resumes; None if the client may not read it."""
        running = self._open.running_reply(generation)
        return (running.generation, running.before) if running else None

    def sessions(self) -> Sequence[Session]:
        return self._open.all()

    @property
    def save_error(self) -> Message | None:
        """Why conversations cannot be saved at the moment; on a public page, without the folder's name."""
        error = self._history.save_error
        return Message("history_unsaved") if error and self.limits.shared else error

    @property
    def durable(self) -> bool:
        return self._history.durable

    def listing(self, place: object) -> list[ConversationSummary]:
        visitor = self._visitor(place)
        return self._history.read([], catalog.listing, visitor)

    def search(self, place: object, query: str) -> "Future[SearchResult]":
        """The conversations that contain the words of `query`, once it is this client's turn. Raises TooManyRequests."""
        return self._searches.submit(CLIENT.get().quota_key, partial(self._search, self._visitor(place), query))

    def _search(self, visitor: str, query: str) -> SearchResult:
        for session in self._open.of(visitor).values():
            session.save()  # so that the latest messages are found, too
        return self._history.search(visitor, query)

    def busy_conversations(self, place: object) -> set[str]:
        """Ids of this visitor's conversations in which a reply is being written."""
        return {id for id, session in self._open.of(self._visitor(place)).items() if session.busy}

    def change(self, place: object, conversation: str, change: Callable[..., bool], *values: object) -> bool:
        """Apply one of the catalog's changes (`rename`, `pin`, `restore`) to the visitor's conversation; whether that worked."""
        visitor = self._visitor(place)
        return self._history.writer.wait(lambda db: change(db, visitor, conversation, *values), False)

    def remove(self, place: object, conversation: str) -> bool:
        """Delete one of the visitor's conversations and stop its running reply; `restore` can bring it back for a minute."""
        was_open = self._close(self._visitor(place), conversation, stopping=True)
        return self.change(place, conversation, catalog.remove) or was_open

    def forget(self, place: object) -> bool:
        """Stop and delete everything of the visitor at `place`, permanently; whether nothing of it is left on disk."""
        visitor = self._visitor(place)
        if not visitor:
            return True
        if CLIENT.get().login:
            self._claim(_secret(place))  # conversations from before the login are theirs as well
        self._history.owners.forget(visitor)  # first, so that another tab cannot save anything more
        for conversation in self._open.of(visitor):
            self._close(visitor, conversation, stopping=True)
        return self._history.forget(visitor)

    def begin_anew(self, place: object) -> tuple[bool, TabState, Session]:
        """Forget the visitor at `place` and begin as a new one, who is always admitted in place of the old one."""
        visitor, login = self._visitor(place), CLIENT.get().login
        if not (login or self._knows(visitor) or self._history.owners.is_forgotten(visitor)):
            self.admission.check_new_visitor()  # there is no old one
        return (self.forget(place), *self._begin("" if login else secrets.token_urlsafe(32)))

    def documents(self, place: object, conversations: Sequence[str] = ()) -> list[Document]:
        """These conversations of the visitor at `place`, or all of them, as they are exported."""
        visitor = self._visitor(place)
        for id, session in self._open.of(visitor).items():
            if id in conversations or not conversations:
                session.save()
        return self._history.documents(visitor, conversations)

    def import_documents(self, place: object, documents: Sequence[Document], size: int = 0) -> None:
        """Add conversations from a file of `size` bytes to the visitor's. Raises HistoryUnusable or ImportRefused."""
        visitor = self._visitor(place)
        if not (CLIENT.get().login or self._knows(visitor)):
            raise HistoryUnusable(reason="")
        kept = self._history.read(0, catalog.count, visitor)
        if kept + len(documents) > self.limits.conversations:
            raise ImportRefused("import_no_room", limit=self.limits.conversations)
        self._history.import_documents(visitor, {secrets.token_urlsafe(16): document for document in documents}, size)

    def close(self) -> None:
        self._autosave.close()
        for each in self._open.clear():
            each.session.close()
        self._history.close()

    def __len__(self) -> int:
        return len(self._open)

    def _visitor(self, place: object) -> str:
        """The visitor at `place`. Where visitors log in with names, a place only says which conversation is meant."""
        if login := CLIENT.get().login:
            return self._history.owners.visitor_of(login)
        secret = _secret(place)
        return hashed(secret) if secret else ""

    def _claim(self, secret: str) -> bool:
        """Give the logged-in client the conversations of that secret; whether none are left under the secret."""
        if not secret:
            return True
        before = hashed(secret)
        for conversation in self._open.of(before):
            self._close(before, conversation)
        return self._history.hand_over(before, self._history.owners.visitor_of(CLIENT.get().login))

    def _knows(self, visitor: str) -> bool:
        if not visitor or self._history.owners.is_forgotten(visitor):
            return False
        return bool(self._open.of(visitor)) or self._history.read(False, catalog.knows, visitor)

    def _latest(self, visitor: str) -> str:
        """The id of the conversation used last, or else of the one that changed last; empty if there is none."""
        in_memory = next(reversed(self._open.of(visitor)), "")
        return in_memory or self._history.read("", catalog.latest, visitor)

    def _find(self, visitor: str, conversation: str) -> Session | None:
        if not (visitor and conversation):
            return None
        if (found := self._open.find(visitor, conversation)) is not None:
            return found
        kept = self._history.read(None, store.load, self._history.images, visitor, conversation)
        return self._add(visitor, conversation, kept) if kept else None

    def _begin(self, secret: str) -> tuple[TabState, Session]:
        """An empty conversation for the secret, or for the client's login."""
        conversation, login = secrets.token_urlsafe(16), CLIENT.get().login
        visitor = self._history.owners.visitor_of(login) if login else hashed(secret)
        if (session := self._add(visitor, conversation, None)) is None:
            # The visitor has just been forgotten, so begin as a new one; a login has got a new one already.
            return self._begin(secret if login else secrets.token_urlsafe(32))
        return _place(secret, conversation), session

    def _add(self, visitor: str, conversation: str, kept: StoredConversation | None) -> Session | None:
        """The conversation's session, now in memory; None if its visitor has been forgotten."""
        recorder = HistoryRecorder(self._history, visitor, conversation, kept)
        counted = CLIENT.get().login or visitor
        session = Session(
            self.engine,
            self.limits,
            key=_engine_key(counted, conversation),
            id=conversation,
            recorder=recorder,
            admission=partial(self.admission.reply, counted),
        )
        if kept is not None:
            session.load(kept.conversation, kept.written, kept.running)
        is_forgotten = partial(self._history.owners.is_forgotten, visitor)
        added = self._open.add((visitor, conversation), OpenSession(session, recorder), unless=is_forgotten)
        if added is None:
            return None
        for evicted, unused in added[1].items():
            if unused.retire():
                self._close(*evicted)
        return added[0]

    def _close(self, visitor: str, conversation: str, stopping: bool = False) -> bool:
        """Save a session and drop it from memory; if it is `stopping` for good, nothing more of it is written afterwards."""
        gone = self._open.remove(visitor, conversation)
        if gone is None:
            return False
        gone.session.save()
        if stopping:
            gone.recorder.close()
        gone.session.close()
        gone.recorder.flush()
        if not self._history.durable and not stopping:  # without a disk, conversations last as long as their sessions
            self._history.writer.wait(lambda db: catalog.remove(db, visitor, conversation), False)
        return True


def place_fields(place: object) -> TabState:
    """The known fields of a place, to be kept for later: whatever else a browser sends may be large."""
    fields = {name: place.get(name) for name in ("visitor", "conversation")} if isinstance(place, dict) else {}
    return {name: value for name, value in fields.items() if isinstance(value, str) and len(value) <= MAX_ID_LENGTH}


def _engine_key(visitor: str, conversation: str) -> str:
    """The opaque key for the engine: caches are reused within a conversation, fairness counts the part before the slash."""
    return f"{visitor[:32]}/{conversation}" if visitor else conversation


def _text(place: object, name: str) -> str:
    """A field of a place; empty if it is missing."""
    value = place.get(name) if isinstance(place, dict) else None
    return value if isinstance(value, str) else ""


_secret, _conversation = partial(_text, name="visitor"), partial(_text, name="conversation")


def _place(secret: str, conversation: str) -> TabState:
    return {"visitor": secret, "conversation": conversation} if secret else {"conversation": conversation}
