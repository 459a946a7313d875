"""Finds a visitor's conversations by their login, or by the place that their browser names; it does not know the browser."""

import hashlib
import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from magistral_ui.chat.conversation import Reply
from magistral_ui.client import CLIENT, NO_CLIENT, Client
from magistral_ui.engines.base import Engine
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import HistoryUnusable, ImportRefused, Message
from magistral_ui.export.document import Document
from magistral_ui.sessions.admission import Admission
from magistral_ui.sessions.autosave import Autosave
from magistral_ui.sessions.fair_queue import FairQueue
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.history.recorder import HistoryRecorder
from magistral_ui.sessions.history.search import ConversationSummary, SearchResult
from magistral_ui.sessions.history.store import StoredConversation
from magistral_ui.sessions.image_work import ImageWork
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.one_time_tokens import OneTimeTokens
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.session_store import OpenSession, SessionStore

Place = dict[str, str]
"""What a browser tab holds: `visitor`, the secret that makes it the visitor's, and `conversation`, which one it shows.

Where people come in by names, the name makes it theirs, and there is no secret.
"""


MAX_QUEUED_SEARCHES = 100
"""Searches from one address; all but a visitor's latest end as soon as they are looked at."""
MAX_ID_LENGTH = 128
"""Characters of a secret or an id that are looked at."""


@dataclass(frozen=True, slots=True)
class ClaimedPlace:
    """What a place says, before any of it is believed."""

    visitor: str
    """The hash of the secret, which is all that is kept of it; or who came in by the caller's login."""
    conversation: str | None


class Visitors:
    """All sessions of this process, bounded in number.

    A secret is 256 random bits: whoever knows it is the visitor, unless people come in by names. Then it only proves that what
    was said in a browser before there were names is the caller's, who gets it for good.
    """

    def __init__(self, engine: Engine, limits: Limits | None = None, history: History | None = None) -> None:
        """Without a `history`, a conversation lives as long as its session."""
        self._engine, self.limits, self._history = engine, limits or Limits(), history
        self.tickets = OneTimeTokens()
        self.admission = Admission(self.limits)
        self.images = ImageWork(self.limits)
        self._searches = FairQueue("search", waiting=MAX_QUEUED_SEARCHES)
        self._open = SessionStore(self.limits)
        self._keeper = Autosave(self.sessions, history, self.admission.stop_unattended)

    def find(self, place: object) -> Session | None:
        """The session at `place`; None where the visitor is not known, or has no such conversation."""
        claim = self._read(place)
        return self._find(claim.visitor, claim.conversation) if claim and claim.conversation else None

    def open(self, place: object = None) -> tuple[Place, Session]:
        """The session at `place` and its place as the browser has to keep it. Secrets and ids are never taken from outside.

        A visitor who names no conversation gets the latest one; who names one that is gone, an empty one.
        """
        claim, secret = self._read(place), _secret(place)
        if CLIENT.get().login:
            secret = "" if self._claimed(secret) else secret  # what cannot be claimed now is claimed the next time
        elif claim is None or not self._knows(claim.visitor):
            self.admission.welcome()
            return self._begin(secrets.token_urlsafe(32))
        assert claim is not None
        wanted = claim.conversation or self._latest(claim.visitor)
        session = self._find(claim.visitor, wanted) if wanted else None
        return (_place(secret, session.id), session) if session else self._begin(secret)

    def begin(self, place: object) -> tuple[Place, Session]:
        """An empty conversation of the visitor at `place`: the one that is there, if nothing was said in it yet."""
        there, session = self.open(place)
        return (there, session) if not session.snapshot()[0].messages else self._begin(_secret(there))

    def temporary_session(self, caller: Client = NO_CLIENT) -> Session:
        """A session that is not kept: for one call of the programmatic door. All of a caller's are counted together."""
        party, key = (caller.login or caller.browser)[:32], secrets.token_urlsafe(16)
        entrance = self.admission.for_visitor(caller.login or party, caller.address)
        return Session(self._engine, self.limits, key=f"{party}/{key}" if party else key, entrance=entrance)

    def reading(self, generation: str) -> tuple[Generation, Reply | None] | None:
        """The running reply of that id, and the beginning that it goes on from; None where the caller may not read it."""
        running = self._open.reading(generation)
        return (running.generation, running.before) if running else None

    def sessions(self) -> Sequence[Session]:
        """All that are in memory."""
        return self._open.all()

    @property
    def engine(self) -> Engine:
        """What writes their replies."""
        return self._engine

    @property
    def save_error(self) -> Message | None:
        """Why conversations cannot be saved at the moment; strangers need not know where."""
        trouble = self._history.save_error if self._history else None
        return Message("history_unsaved") if trouble and self.limits.shared else trouble

    @property
    def durable(self) -> bool:
        """Whether conversations are kept on disk."""
        return self._history is not None and self._history.durable

    def listing(self, place: object) -> list[ConversationSummary]:
        """The conversations of the visitor at `place`."""
        claim = self._read(place)
        return self._history.listing(claim.visitor) if claim and self._history else []

    def search(self, place: object, query: str) -> "Future[SearchResult]":
        """Those that hold the words of `query`, once it is this caller's turn. Raises TooManyRequests."""
        claim, history = self._read(place), self._history

        def look() -> SearchResult:
            return history.search(claim.visitor, query) if claim and history else SearchResult()

        return self._searches.submit(CLIENT.get().party, look)

    def writing(self, place: object) -> set[str]:
        """Ids of this visitor's conversations in which a reply is being written."""
        claim = self._read(place)
        mine = self._open.of(claim.visitor) if claim else {}
        return {id for id, session in mine.items() if session.busy}

    def rename(self, place: object, conversation: str, title: str) -> bool:
        """Give one of the visitor's conversations a name; whether that was done."""
        claim = self._read(place)
        return bool(claim and self._history and self._history.rename(claim.visitor, conversation, title))

    def pin(self, place: object, conversation: str, pinned: bool) -> bool:
        """Keep one of the visitor's conversations at the top, or not any more; whether that was done."""
        claim = self._read(place)
        return bool(claim and self._history and self._history.pin(claim.visitor, conversation, pinned))

    def remove(self, place: object, conversation: str) -> bool:
        """Delete one of the visitor's conversations and stop what runs in it; it can come back for a minute."""
        claim = self._read(place)
        if claim is None:
            return False
        session = self._close(claim.visitor, conversation, stopping=True)
        return bool(self._history and self._history.remove(claim.visitor, conversation)) or session

    def restore(self, place: object, conversation: str) -> bool:
        """Bring back a deleted conversation; whether that was done."""
        claim = self._read(place)
        return bool(claim and self._history and self._history.restore(claim.visitor, conversation))

    def forget(self, place: object) -> bool:
        """Stop and delete everything of the visitor at `place`, for good; whether the disk is clean of it, too."""
        claim = self._read(place)
        if claim is None:
            return True
        if CLIENT.get().login:
            self._claimed(_secret(place))  # what nobody has claimed yet in this browser is theirs as well
        if self._history is not None:
            self._history.owners.forget(claim.visitor)  # first, so that another tab brings nothing back
        for conversation in self._open.of(claim.visitor):
            self._close(claim.visitor, conversation, stopping=True)
        return self._history is None or self._history.forget(claim.visitor)

    def begin_anew(self, place: object) -> tuple[bool, Place, Session]:
        """Forget the visitor at `place`, and where the one is who comes after: always let in, since another one goes."""
        claim, login = self._read(place), CLIENT.get().login
        if not login and not (claim and (self._knows(claim.visitor) or self._is_forgotten(claim.visitor))):
            self.admission.welcome()  # nobody goes
        return (self.forget(place), *self._begin("" if login else secrets.token_urlsafe(32)))

    def documents(self, place: object, conversations: Sequence[str] = ()) -> list[Document]:
        """These conversations of the visitor at `place`, or all, as they go into a file."""
        claim = self._read(place)
        if claim is None or self._history is None:
            return []
        for id, session in self._open.of(claim.visitor).items():
            if id in conversations or not conversations:
                session.save()
        return self._history.documents(claim.visitor, conversations)

    def take_in(self, place: object, documents: Sequence[Document], size: int = 0) -> None:
        """Make conversations from a file of `size` bytes the visitor's at `place`; HistoryUnusable or ImportRefused: none is."""
        claim = self._read(place)
        if claim is None or self._history is None or not (CLIENT.get().login or self._knows(claim.visitor)):
            raise HistoryUnusable(reason="")
        if self._history.count(claim.visitor) + len(documents) > self.limits.conversations:
            raise ImportRefused("import_no_room", limit=self.limits.conversations)
        self._history.take_in(claim.visitor, {secrets.token_urlsafe(16): document for document in documents}, size)

    def close(self) -> None:
        """Stop all that runs, and put down what was written."""
        self._keeper.close()
        for each in self._open.clear():
            each.session.close()
        if self._history is not None:
            self._history.close()

    def __len__(self) -> int:
        return len(self._open)

    def _read(self, place: object) -> ClaimedPlace | None:
        """What a place says. Where people come in by names, it only says which of a person's conversations is meant."""
        conversation = place.get("conversation") if isinstance(place, dict) else None
        conversation = conversation if isinstance(conversation, str) and conversation else None
        if login := CLIENT.get().login:
            return ClaimedPlace(self._comes_in_by(login), conversation)
        secret = _secret(place)
        return ClaimedPlace(hashed(secret), conversation) if secret else None

    def _comes_in_by(self, login: str) -> str:
        return self._history.owners.visitor_of(login) if self._history else login

    def _claimed(self, secret: str) -> bool:
        """Give the caller, who came in by a name, what was said with that secret; whether nothing is left of it there."""
        if not secret or self._history is None:
            return True
        before = hashed(secret)
        for conversation in self._open.of(before):
            self._close(before, conversation)
        return self._history.hand_over(before, self._comes_in_by(CLIENT.get().login))

    def _knows(self, visitor: str) -> bool:
        if self._is_forgotten(visitor):
            return False
        return bool(self._open.of(visitor)) or (self._history is not None and self._history.knows(visitor))

    def _is_forgotten(self, visitor: str) -> bool:
        return self._history is not None and self._history.owners.is_forgotten(visitor)

    def _latest(self, visitor: str) -> str | None:
        latest = next(reversed(self._open.of(visitor)), None)
        return latest or (self._history.latest(visitor) if self._history else None)

    def _find(self, visitor: str, conversation: str) -> Session | None:
        if (found := self._open.find(visitor, conversation)) is not None:
            return found
        kept = self._history.load(visitor, conversation) if self._history else None
        return self._add(visitor, conversation, kept) if kept else None

    def _begin(self, secret: str) -> tuple[Place, Session]:
        """An empty conversation of whoever knows the secret, or of the caller's login."""
        conversation, login = secrets.token_urlsafe(16), CLIENT.get().login
        visitor = self._comes_in_by(login) if login else hashed(secret)
        if (session := self._add(visitor, conversation, None)) is None:
            # Forgotten meanwhile, and so a new visitor; to a login, the owners have given another one already.
            return self._begin(secret if login else secrets.token_urlsafe(32))
        return _place(secret, conversation), session

    def _add(self, visitor: str, conversation: str, kept: StoredConversation | None) -> Session | None:
        """The conversation in memory; None where its visitor has had everything forgotten."""
        book = HistoryRecorder(self._history, visitor, conversation, kept) if self._history else None
        # Cache reuse stays within the conversation, fairness counts all of a visitor's together.
        party = CLIENT.get().login or visitor
        key = f"{party[:32]}/{conversation}"
        entrance = self.admission.for_visitor(party)
        session = Session(self._engine, self.limits, key=key, id=conversation, record=book, entrance=entrance)
        if kept is not None:
            session.load(kept.conversation, kept.written, kept.running)
        opened, gone = OpenSession(session, book), partial(self._is_forgotten, visitor)
        if (added := self._open.add((visitor, conversation), opened, unless=gone)) is None:
            return None
        for doomed, unused in added[1].items():
            if unused.retire():
                self._close(*doomed)
        return added[0]

    def _close(self, visitor: str, conversation: str, stopping: bool = False) -> bool:
        """Drop a session from memory, put down first, or with nothing more written where it is `stopping` for good."""
        gone = self._open.take_out(visitor, conversation)
        if gone is None:
            return False
        if gone.book is not None and stopping:
            gone.book.close()
        gone.session.save()
        gone.session.close()
        if gone.book is not None:
            gone.book.flush()
        if self._history is not None and not self._history.durable and not stopping:
            self._history.remove(visitor, conversation)  # in memory, what no session holds is not kept either
        return True


def hashed(secret: str) -> str:
    """What is kept of a visitor's secret. It has 256 random bits, so a plain SHA-256 cannot be turned back."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def bare(place: object) -> Place:
    """What a place says and no more, to be kept for later: what else a browser sends may be large."""
    said = {name: place.get(name) for name in ("visitor", "conversation")} if isinstance(place, dict) else {}
    return {name: value for name, value in said.items() if isinstance(value, str) and len(value) <= MAX_ID_LENGTH}


def _secret(place: object) -> str:
    """The secret that a place shows; empty where there is none."""
    secret = place.get("visitor") if isinstance(place, dict) else None
    return secret if isinstance(secret, str) else ""


def _place(secret: str, conversation: str) -> Place:
    return {"visitor": secret, "conversation": conversation} if secret else {"conversation": conversation}
