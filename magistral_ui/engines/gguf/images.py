"""Writes the prompt of a sequence with images for llama.cpp's `/completion`, and says what llama.cpp makes of it.

With images, llama.cpp takes a prompt only as text, which it cuts into tokens itself, so that the ids may differ from ours.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from magistral_ui.engines.base import Measure
    from magistral_ui.engines.local.sequence import Sequence
    from magistral_ui.engines.local.tokenizer import EncodedPrompt, Tokenizer


class ServerAddress(Protocol):
    """What is needed of a running server: its address, key, and `/props`."""

    host: str
    port: int
    key: str
    props: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ServerPrompt:
    """A sequence's prompt in the form that `/completion` accepts."""

    value: list[int] | dict[str, Any]
    """The `prompt` of the request."""
    tokens: int
    """How many tokens llama.cpp reads; as many as the sequence has if `exact`."""
    exact: bool
    """Whether they are the sequence's own tokens, id by id."""


class PromptWriter:
    """Writes prompts for one running server; thread-safe. Remembers, per visitor, scaled images and how texts were cut."""

    def __init__(self, tokenizer: "Tokenizer", server: ServerAddress) -> None:
        self._tokenizer = tokenizer
        self._server = server

    def prompt_of(self, sequence: "Sequence") -> ServerPrompt:
        """All tokens of the sequence so far, the written ones included: ids if there are no images among them."""
        if not sequence.prompt.image_spans:
            return ServerPrompt(list(sequence.tokens), len(sequence.tokens), exact=True)
        raise NotImplementedError

    def measure(self, measure: "Measure", prompt: "EncodedPrompt", visitor: str) -> "Measure":
        """`measure` of our tokenizer, corrected to what llama.cpp will read, or marked as estimated."""
        raise NotImplementedError

    def forget(self, visitor: str) -> None:
        """Drop what is remembered of a visitor."""
