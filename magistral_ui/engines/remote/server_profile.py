"""What is known of a server once it was asked: its dialect, its model, and how its tokens are counted; a value, no more."""

from dataclasses import dataclass

from magistral_ui.chat.prompt import Resume
from magistral_ui.engines.base import ModelInfo
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.models.cards import ModelCard


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """One server with the one model that is asked for."""

    dialect: Dialect
    card: ModelCard
    model: str
    """The name that requests bear."""
    info: ModelInfo
    context_known: bool = False
    """Whether the server has said how long its context is; otherwise it is the card's guess."""
    most_tokens: int | None = None
    """How much the server writes at most, however short the prompt; None where it has not said."""
    cuts_short: bool = False
    """Whether its replies end early where it is not told how long they may be."""
    loaded: bool = True
    """Whether the model is in the server's memory; before, a router knows little of it."""
    shaped: bool = True
    """Whether it is known what its template does."""
    facts_path: str = ""
    """Where the server tells more of its models than their names."""
    seen: str = ""
    """A digest of what it said of itself."""

    @property
    def marks(self) -> tuple[tuple[str, str], ...]:
        """The pairs of marks that may tell the reasoning in its text, the card's own first."""
        return self.card.textual_marks


def reader_for(profile: ServerProfile, resume: Resume | None, *, by_tokens: bool = False) -> ReplyReader:
    """A reader that goes on where `resume` ends; from tokens, open reasoning goes on as text."""
    echo = (resume.reasoning or "", resume.answer) if resume and profile.dialect.resume == "prefix" else ("", "")
    closed = (
        resume is not None and (resume.closed or resume.reasoning is None) and bool(resume.reasoning or resume.answer)
    )
    return ReplyReader(
        profile.marks,
        one_token_a_chunk=profile.dialect.one_token_a_chunk,
        channel="reasoning" if by_tokens else "answer" if closed else "before",
        fresh=resume is None or (closed and not resume.answer),
        echo=echo,
    )
