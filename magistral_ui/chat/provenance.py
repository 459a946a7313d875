"""Where a reply comes from: which model, run how, and what was chosen about its prompt; the parameters are the reply's own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provenance:
    """What it takes, with a reply's parameters, to write that reply again. Every field is a plain value.

    A reply may go on from a beginning: one that was continued, or answered again from its reasoning. The reply's own
    first characters are that beginning.
    """

    model: str = ""
    source: str = ""
    """Repository or folder name."""
    revision: str = ""
    precision: str = ""
    device: str = ""
    engine: str = ""
    """What ran the model, such as `transformers`."""
    instructions: str = ""
    """The custom instructions."""
    system_prompt: str | None = None
    """The reasoning prompt that stood in the place of the model's own, with its literal marks; None: its own."""
    keep_reasoning: bool = True
    """Whether earlier reasoning was in the context, where a message did not say otherwise."""
    prompt: str = ""
    """Digest of all that the model read; it tells whether it would read the same again."""
    begun_reasoning: int = 0
    """Characters of the reasoning that the reply went on from."""
    begun_answer: int = 0
    """Characters of the answer that it went on from."""
    begun_closed: bool = False
    """Whether it went on behind the reasoning: with the answer."""
    edited: bool = False
    """Whether a person changed the reasoning that the reply goes on from."""
