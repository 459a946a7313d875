"""Turn a made-up conversation into the tokens and pictures that mistral-common would make of it.

It also says which tokens the model should learn to write. It knows nothing of torch.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from numpy.typing import NDArray

from magistral_ui.models.demo.dataset import Conversation

_THINKING = re.compile(r"\[THINK\](.*?)\[/THINK\]", re.DOTALL)
_BRIEF_SUM = 36  # tokens of a brief reply: enough to restate and compare the numbers …
_BRIEF = 24  # … or to say what the matter is
_FULL_WEIGHT = 150  # an answer longer than this many tokens counts no more than this many


@dataclass(frozen=True)
class Sample:
    """Tokens, the weight of each in the loss (0: not learned), and the pictures as (3, height, width)."""

    tokens: list[int]
    weights: list[float]
    pictures: list[NDArray[np.float32]]


class Encoder:
    """Encodes conversations for the model in a folder."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = MistralTokenizer.from_file(str(folder / "tekken.json"))
        self._tekken = self.tokenizer.instruct_tokenizer.tokenizer
        encoder = self.tokenizer.instruct_tokenizer.image_encoder
        assert encoder is not None, "the tokenizer has no image section"
        self._pictures = encoder
        self._text = lru_cache(maxsize=50_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tekken.encode(text, bos=False, eos=False))

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

    def encode(self, made: Conversation) -> Sample:
        """Encode a conversation whose last turn is answered."""
        tokens = [self.mark("<s>"), *(self.system(made.system) if made.system else [])]
        weights, shown = [0.0] * len(tokens), []
        for index, turn in enumerate(made.turns):
            last = index == len(made.turns) - 1
            asked = [self.mark("[INST]")]
            for picture in turn.pictures:
                encoded = self._pictures(ImageChunk(image=picture.image))
                asked += encoded.tokens
                shown.append(encoded.image)
            asked += [*self._text(turn.text), self.mark("[/INST]")]
            thought = [self.mark("[THINK]"), *self._text(turn.reasoning), self.mark("[/THINK]")]
            answered = [*self._text(turn.answer), self.mark("</s>")]
            kept = last or made.keep_reasoning
            reply = [*thought, *answered] if kept else answered
            weight = min(1.0, _FULL_WEIGHT / len(reply)) if kept else 0.0
            learned = [weight] * len(reply)
            if last and made.cut:
                learned[: len(thought)] = [0.0] * len(thought)
            if last and made.brief:
                most = _BRIEF_SUM if turn.subject == "sum" else _BRIEF
                reply, learned = reply[:most], learned[:most]
            tokens += [*asked, *reply]
            weights += [0.0] * len(asked) + learned
        return Sample(tokens, weights, shown)
