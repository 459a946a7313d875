"""Folds the events of one reply into what it says so far; not where they come from or how they are shown."""

from dataclasses import dataclass, field

from magistral_ui.chat.conversation import Reply
from magistral_ui.chat.events import (
    Answer,
    Event,
    Failed,
    Finished,
    Notice,
    Prefilling,
    Queued,
    Reasoning,
    Reclassified,
    Usage,
)
from magistral_ui.chat.sampling import SamplingParams


@dataclass(slots=True)
class ReplyBuilder:
    """One reply while it grows; `feed` costs the same for the first and the last event. Its usage is the generation's."""

    reasoning: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    reasoned: bool = False
    """Whether there was reasoning."""
    closed: bool = False
    """Whether the reasoning is closed: the mark was written, or an answer without reasoning has begun."""
    answering: bool = False
    """Whether the answer has begun (with something to read)."""
    queue_position: int | None = None
    retry_seconds: float = 0.0
    """After how long a busy server is asked again; 0.0 while nobody waits for one."""
    prefilling: Prefilling | None = None
    last: Finished | Failed | None = None

    def feed(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case Reasoning(text):
                self.reasoning.append(text)
                self.reasoned = True
                self._writing()
            case Answer(text):
                self.answer.append(text)
                self.closed = self.closed or self.reasoned or bool(text.strip())
                self.answering = self.answering or bool(text.strip())
                self._writing()
            case Reclassified():
                self._reclassify()
            case Notice():
                self.notices.append(event)
            case Queued(position, seconds):
                self.queue_position, self.retry_seconds = position, seconds
            case Prefilling():
                self.prefilling, self.queue_position, self.retry_seconds = event, None, 0.0
            case Finished() | Failed():
                self.last = event
                self._writing()

    def _reclassify(self) -> None:
        """What is called an answer so far was reasoning, which is closed now."""
        said = "".join(self.answer)
        self.reasoning.append(said if any(self.reasoning) else said.lstrip("\r\n"))
        self.answer, self.answering, self.closed, self.reasoned = [], False, True, True

    def _writing(self) -> None:
        self.queue_position, self.prefilling, self.retry_seconds = None, None, 0.0

    def take_texts(self) -> tuple[str, str]:
        """The reasoning and the answer that have come since the last call; they are no part of a later one, or of `reply`."""
        texts = "".join(self.reasoning), "".join(self.answer)
        self.reasoning, self.answer = [], []
        return texts

    def reply(self, params: SamplingParams | None = None, model: str = "", before: Reply | None = None) -> Reply:
        """The reply so far; `before` is the beginning that it continues."""
        reasoning = (before.reasoning if before else "") + "".join(self.reasoning)
        answer = (before.answer if before else "") + "".join(self.answer)
        failed = self.last if isinstance(self.last, Failed) else None
        usage = self.last.usage if self.last else Usage()
        return Reply(
            reasoning=reasoning,
            answer=answer,
            reasoning_closed=self.closed or not reasoning or bool(before and before.reasoning_closed),
            finish_reason=self.last.why if isinstance(self.last, Finished) else None,
            failure=failed.key if failed else None,
            failure_values=failed.values if failed else {},
            notices=tuple(notice.key for notice in self.notices),
            usage=before.usage.then(usage) if before else usage,
            params=params,
            model=model,
        )
