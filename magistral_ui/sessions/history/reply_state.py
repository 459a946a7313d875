"""A reply on its way into a conversation, and where it comes from; it does not write the reply."""

from dataclasses import dataclass, replace

from magistral_ui.chat.conversation import Provenance, Reply
from magistral_ui.chat.events import Notice
from magistral_ui.chat.prompt import Prompt, PromptChoices
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, info_of
from magistral_ui.engines.generation import Generation


@dataclass(frozen=True, slots=True)
class RunningReply:
    """A reply being written: to which user message, and from what."""

    generation: Generation
    to: int
    params: SamplingParams
    provenance: Provenance
    before: Reply | None = None
    """The part of a reply that it resumes."""
    continues: int | None = None
    """The reply that it will replace."""
    replays: Reply | None = None
    """The reply that it is to reproduce."""

    @property
    def model(self) -> str:
        return self.provenance.model


@dataclass(frozen=True, slots=True)
class ReplyOrigin:
    """How a reply came into the conversation: the id of its generation, and the notices about it."""

    generation: str
    notices: tuple[Notice, ...] = ()


def runs(engine: Engine) -> Provenance:
    """What would write a reply now; only its name where the model is not loaded."""
    info = info_of(engine.status())
    if info is None:
        return Provenance(model=engine.card.name)
    return Provenance(info.name, info.source, info.revision, info.precision, info.device, info.engine)


def closes_reasoning(engine: Engine) -> bool:
    """Whether the engine can close reasoning when a budget is spent."""
    info = info_of(engine.status())
    return info is None or "reasoning_budget" not in info.missing


def provenance(engine: Engine, prompt: Prompt, choices: PromptChoices, before: Reply | None) -> Provenance:
    """The provenance of a reply that resumes `before`."""
    source = before.provenance if before else None
    return replace(
        runs(engine),
        instructions=choices.instructions,
        system_prompt=choices.system_prompt,
        keep_reasoning=choices.keep_reasoning,
        prompt=prompt.digest,
        begun_reasoning=len(before.reasoning) if before else 0,
        begun_answer=len(before.answer) if before else 0,
        begun_closed=before.reasoning_closed if before else False,
        edited=bool(source and source.edited),
    )


def same_model(one: Provenance, other: Provenance) -> bool:
    """Whether equal requests give equal replies: the same weights, in the same precision, on the same kind of device."""
    facts = [(p.model, p.source, p.revision, p.precision, p.device, p.engine) for p in (one, other)]
    return facts[0] == facts[1]


def replay_notice(old: Reply, new: Reply) -> Notice | None:
    """The notice about `new`, which was to reproduce `old`; None where a person pressing a button made the difference."""
    if (new.reasoning, new.answer) == (old.reasoning, old.answer):
        return Notice("replay_same")
    by_hand = "cancelled" in (old.finish_reason, new.finish_reason) or "answered_now" in old.notices + new.notices
    if by_hand or new.failure or not (old.provenance and new.provenance):
        return None
    if not same_model(old.provenance, new.provenance):
        return Notice("replay_elsewhere")
    return Notice("replay_changed" if old.provenance.prompt != new.provenance.prompt else "replay_differs")
