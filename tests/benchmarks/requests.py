"""Makes the requests of benchmarks: texts of a wanted length, none of them twice."""

from magistral_ui.chat.prompt import Prompt, Turn, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest

TEXT = "the quick brown fox jumps over a lazy dog and rests under an old tree"
WORDS = TEXT.split()


class UniqueRequests:
    """Counts them, so that no cache holds what they ask."""

    def __init__(self) -> None:
        self._made = 0

    def text(self, tokens: int) -> str:
        """A message of which a prompt has about `tokens` tokens."""
        self._made += 1
        return " ".join([str(self._made), *(WORDS[i % len(WORDS)] for i in range(max(1, tokens - 4)))])

    def make(self, tokens: int, new: int, visitor: int = 0, turns: tuple[Turn, ...] = ()) -> GenerationRequest:
        """A prompt of about `tokens` tokens that was never sent before, answered greedily with `new` tokens."""
        prompt = Prompt((), (*turns, UserTurn(self.text(tokens))))
        return GenerationRequest(prompt, SamplingParams(temperature=0, max_tokens=new, seed=0), f"visitor {visitor}")
