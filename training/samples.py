"""Turn a made-up conversation into the tokens and pictures that mistral-common would make of it.

It also says which tokens the model should learn to write. It knows nothing of torch.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from numpy.typing import NDArray

from training.dataset import Conversation, Turn

_THINKING = re.compile(r"\[THINK\](.*?)\[/THINK\]", re.DOTALL)
_BRIEF_SUM = 36  # tokens of a brief reply: enough to restate and compare the numbers …
_BRIEF = 24  # … or to say what the matter is
_FULL_WEIGHT = 150  # an answer longer than this many tokens counts no more than this many


@dataclass(frozen=True)
class Sample:
    """Tokens, the weight of each in the loss (0: not learned), and the pictures as (3, height, width)."""

    tokens: list[int]
    weights: list[float]
    images: list[NDArray[np.float32]]


class Encoder:
    """Encodes conversations for the model in a folder."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = MistralTokenizer.from_file(str(folder / "tekken.json"))
        self._tekken = self.tokenizer.instruct_tokenizer.tokenizer
        encoder = self.tokenizer.instruct_tokenizer.image_encoder
        assert encoder is not None, "the tokenizer has no image section"
        self._images = encoder
        self._text = lru_cache(maxsize=50_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tekken.encode(text, bos=False, eos=False))

    def _piece(self, token: int) -> bytes:
        assert isinstance(self._tekken, Tekkenizer)
        return self._tekken.id_to_byte_piece(token)

    def mark(self, name: str) -> int:
        """Return the id of a special token such as `[THINK]`."""
        return int(self._tekken.get_special_token(name))

    def system(self, prompt: str) -> list[int]:
        """Return the tokens of a system prompt with literal `[THINK]…[/THINK]`."""
        parts, tokens = _THINKING.split(prompt), [self.mark("[SYSTEM_PROMPT]")]
        for index, part in enumerate(parts):
            thought = [self.mark("[THINK]"), *self._text(part), self.mark("[/THINK]")]
            tokens += thought if index % 2 else self._text(part)
        return [*tokens, self.mark("[/SYSTEM_PROMPT]")]

    def thought(self, turn: Turn) -> tuple[list[int], list[int]]:
        """Return the tokens of a turn's reasoning: those given, and those that the model wrote until it was ended."""
        given, written = list(self._text(turn.given)), list(self._text(turn.reasoning))
        if turn.closed is not None:
            left = len(turn.reasoning[: turn.closed].encode())
            ends = accumulate(len(self._piece(token)) for token in written)
            written = written[: sum(end <= left for end in ends)]
        return given, written

    def thought_text(self, turn: Turn) -> str:
        """Return a turn's reasoning as text, as far as it was written."""
        given, written = self.thought(turn)
        return b"".join(map(self._piece, (*given, *written))).decode("utf-8", "ignore")

    def _earlier(self, turn: Turn) -> list[int]:
        """Return the reasoning of an earlier turn as it is read again: as text, and none where it is empty."""
        text = self.thought_text(turn)
        return [self.mark("[THINK]"), *self._text(text), self.mark("[/THINK]")] if text else []

    def encode(self, made: Conversation) -> Sample:
        """Encode a conversation whose last turn is answered."""
        tokens = [self.mark("<s>"), *(self.system(made.system) if made.system else [])]
        weights, shown = [0.0] * len(tokens), []
        for index, turn in enumerate(made.turns):
            asked = [self.mark("[INST]")]
            for image in turn.images:
                encoded = self._images(ImageChunk(image=image.image))
                asked += encoded.tokens
                shown.append(encoded.image)
            asked += [*self._text(turn.text), self.mark("[/INST]")]
            reply, learned = self._reply(made, turn, last=index == len(made.turns) - 1)
            tokens += [*asked, *reply]
            weights += [0.0] * len(asked) + learned
        return Sample(tokens, weights, shown)

    def _reply(self, made: Conversation, turn: Turn, last: bool) -> tuple[list[int], list[float]]:
        """Return a reply and what of it is learned: what the model would write itself, of earlier ones with reasoning alone.

        An answer without reasoning before it, as it stands in a history, would teach it not to reason.
        """
        answered = [*self._text(turn.answer), self.mark("</s>")]
        given, written = self.thought(turn)
        thought = [self.mark("[THINK]"), *given, *written, self.mark("[/THINK]")]
        if not last:
            thought = self._earlier(turn) if made.keep_reasoning else []
        reply = [*thought, *answered]
        weight = (
            1.0 if turn.subject == "count" else min(1.0, _FULL_WEIGHT / len(reply))
        )  # where it ends is one token of many
        learned = [weight if thought else 0.0] * len(reply)
        learned[1 : 1 + len(given)] = [0.0] * len(given)
        if thought and turn.closed is not None:
            learned[len(thought) - 1] = 0.0
        if last and made.brief:
            most = _BRIEF_SUM if turn.subject == "sum" else _BRIEF
            most += len(thought) if turn.closed is not None else 0
            reply, learned = reply[:most], learned[:most]
        return reply, learned
