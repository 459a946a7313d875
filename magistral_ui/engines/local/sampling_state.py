"""What the choice of a token depends on, apart from the logits; it needs no torch and chooses nothing."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from magistral_ui.chat.sampling import SamplingParams


@dataclass(slots=True)
class Flatness:
    """Whether the reply's last distribution was so flat that more than the first candidates had to be looked at.

    It is a guess for the next token that saves a wait for the device; tokens never depend on it.
    """

    flat: bool = False


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to choose. Equal draws from equal logits give equal tokens."""

    params: SamplingParams
    position: int
    """Tokens that the reply has before this one: with the seed, it decides the random number."""
    seen: Sequence[int] = ()
    """Tokens that the repetition penalty counts, in any order, repeated or not; empty without such a penalty."""
    banned: tuple[int, ...] = ()
    """Tokens that are never drawn."""
    flatness: Flatness = field(default_factory=Flatness, compare=False)


@dataclass(slots=True)
class SamplingState:
    """The part of a reply's state from which its draws are made."""

    params: SamplingParams
    seen: set[int] = field(default_factory=set)
    """Tokens that a repetition penalty counts, the prompt's among them; empty without such a penalty."""
    position: int = 0
    """Tokens that the reply has already, those that it resumes included."""
    _ordered: "array[int]" = field(init=False, repr=False)
    """Those of `seen` as they came: it only grows, so that no step has to sort or copy them one by one."""
    _flatness: Flatness = field(default_factory=Flatness, init=False, repr=False)

    def __post_init__(self) -> None:
        self._ordered = array("q", self.seen)

    def took(self, token: int) -> None:
        """`token` was written, whether it was drawn or forced."""
        self.position += 1
        if self.params.repetition_penalty != 1.0 and token not in self.seen:
            self.seen.add(token)
            self._ordered.append(token)

    def draw(self, banned: tuple[int, ...] = (), after: Sequence[int] = ()) -> Draw:
        """The draw of the next token, or of the one that comes after the drafted tokens `after`.

        To be used before the next token is taken: it refers to what has been seen.
        """
        seen = self._ordered
        if after and self.params.repetition_penalty != 1.0:
            seen = seen + array("q", after)
        return Draw(self.params, self.position + len(after), seen, banned, self._flatness)
