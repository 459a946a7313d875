"""One request on its way through the engine: its tokens, what has been read of them, and what each new one says."""

from collections.abc import Iterable, Mapping

import torch

from magistral_ui.chat.events import Failed, Finished, FinishReason, Notice, Prefilling, Reclassified
from magistral_ui.chat.reasoning import ReasoningPiece, TokenReader
from magistral_ui.chat.reasoning_control import LoopGuard, ReasoningControl, reasoning_limit
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.decoder import DecoderInput
from magistral_ui.engines.local.image_input import ImageInput
from magistral_ui.engines.local.prefix_cache import CacheEntry
from magistral_ui.engines.local.sampler import Sampler
from magistral_ui.engines.local.tokenizer import EncodedPrompt, Tokenizer
from magistral_ui.errors import Value


class Sequence:
    """`tokens` are the prompt's and the reply's; as many as `entry.keys` holds are in the cache, the others are to be read.

    One token to read is a decode step, more are prefill: both are the same forward.
    """

    def __init__(
        self, request: GenerationRequest, prompt: EncodedPrompt, generation: Generation, encoder: Tokenizer, limit: int
    ) -> None:
        """`limit` is the number of tokens that the reply may have, never more than what fits behind the prompt."""
        params = request.params
        self.visitor = request.visitor
        self.generation = generation
        self.prompt = prompt
        self.tokens = list(prompt.ids)
        self.keys = list(prompt.keys)
        self.entry: CacheEntry | None = None
        self.reused = 0
        self.admitted = 0
        """Which admission it was: the scheduler's number, larger for who came later."""
        self._encoder = encoder
        self.limit = limit
        self._reader: TokenReader = encoder.reader()
        self._sampler = Sampler(params, prompt.ids, position=prompt.resumed)
        self._control = ReasoningControl(
            encoder.control_tokens(), reasoning_limit(limit, params.reasoning_budget), LoopGuard()
        )
        self._closed_at: int | None = None  # where the reply's answer begins, counted from its first token
        generation.count_prompt(len(prompt.ids))
        self._wanted = params.max_tokens
        for token in prompt.ids[len(prompt.ids) - prompt.resumed :]:  # as if this reply had written its beginning
            self._reader.feed(token)
            self._control.took(token, self._reader.channel)
        if prompt.resumed:
            self._reader.take_up()

    @property
    def written(self) -> int:
        """Tokens of the reply so far."""
        return len(self.tokens) - len(self.prompt.ids)

    @property
    def unread(self) -> int:
        """Tokens that are not in the cache yet: more than one while the prompt is being read."""
        return len(self.tokens) - (len(self.entry.keys) if self.entry else 0)

    @property
    def prefilling(self) -> bool:
        """Whether the prompt (or, after being set aside, the whole sequence) is still being read."""
        return self.unread > 1

    def start(self, entry: CacheEntry) -> None:
        """Go on with `entry`, which holds the beginning of this sequence's tokens."""
        self.entry = entry
        self.reused = len(entry.keys)
        if not self.written:
            self.generation.count_prompt(len(self.prompt.ids), self.reused)
            self.generation.put(Prefilling(self.reused, len(self.tokens), self.reused))

    def image_to_see(self, count: int) -> ImageInput | None:
        """The first picture among the next `count` tokens whose features are still to be made."""
        first = self._committed
        for place in self.prompt.places:
            end = place.start + len(place.input.tokens)
            if place.start < first + count and end > first and place.input.features is None:
                return place.input
        return None

    def part(self, count: int, image_token: int | None) -> DecoderInput:
        """The next `count` unread tokens, with the features of the pictures among them."""
        first = self._committed
        assert self.entry is not None
        part = DecoderInput(self.entry.cache, self.tokens[first : first + count])
        for place in self.prompt.places:
            ids = place.input.tokens
            begin, end = max(first, place.start), min(first + count, place.start + len(ids))
            if begin >= end or place.input.features is None:
                continue
            skipped = ids[: begin - place.start].count(image_token or 0)
            rows = [i - first for i in range(begin, end) if ids[i - place.start] == image_token]
            features = place.input.features[skipped : skipped + len(rows)]
            part.features.append((torch.tensor(rows, device=features.device), features))
        return part

    def read(self, count: int) -> None:
        """`count` more tokens are in the cache now."""
        assert self.entry is not None
        first = self._committed
        self.entry.keys += self.keys[first : first + count]
        if count > 1 and not self.written:
            self.generation.put(Prefilling(self._committed, len(self.tokens), self.reused))

    def write(self, logits: torch.Tensor) -> bool:
        """Choose the next token from `logits` (vocabulary,) and tell it; whether the reply goes on."""
        channel = self._reader.channel
        token = self._control.forced(channel, self.generation.answer_now_asked)
        if token is None:
            token = self._sampler(logits, self._control.banned())
        return self._write(token)

    def accept(self, token: int, answer_now: bool) -> bool:
        """Tell a token that a sequence like this one has chosen elsewhere; whether the reply goes on.

        `answer_now` says whether the answer was asked for then: so control comes to the same here.
        """
        self._control.forced(self._reader.channel, answer_now)
        return self._write(token)

    def take_up(self, written: Iterable[tuple[int, bool]]) -> None:
        """Go on behind tokens that were chosen and told elsewhere, as by `accept`."""
        for token, answer_now in written:
            self._control.forced(self._reader.channel, answer_now)
            self._control.notice = None
            self._took(token)

    def _took(self, token: int) -> list[ReasoningPiece]:
        """One more token of the reply, and what can be told of it."""
        self._sampler.took(token)
        self.tokens.append(token)
        self.keys.append(token)
        was = self._reader.channel
        pieces = self._reader.feed(token)
        reclassified = any(isinstance(piece, Reclassified) for piece in pieces)
        if reclassified or (was == "reasoning" and self._reader.channel == "answer"):
            self._closed_at = self.written
        self._control.took(token, self._reader.channel)
        return pieces

    def _write(self, token: int) -> bool:
        if self._control.notice is not None:
            self.generation.put(Notice(self._control.notice))
            self._control.notice = None
        self.generation.count_first_token()
        if token == self._encoder.end_of_turn:
            self.finish("stop")
            return False
        self._tell(self._took(token))
        if self.written >= self.limit:
            if self.limit < self._wanted:
                self.generation.put(Notice("max_tokens_lowered", {"limit": self.limit}))
            self.finish("length")
            return False
        return True

    def finish(self, why: FinishReason) -> None:
        """The last event of a reply that ended in order; what was written is remembered for the next turn."""
        self._tell(self._reader.finish(cut=why != "stop"))
        if not self.prompt.resumed:
            self._remember(self.generation.reasoning or None, self.generation.answer)
        self.generation.put(Finished(why))

    def _remember(self, reasoning: str | None, answer: str) -> None:
        """Keep the tokens of the whole reply, and of its reasoning alone, to be answered from again."""
        written = self.tokens[len(self.prompt.ids) :]
        closed = reasoning is None or self._closed_at is not None
        self._encoder.remember_reply(self.visitor, reasoning, answer, written, closed=closed)
        if reasoning is not None and self._closed_at is not None:
            self._encoder.remember_reply(self.visitor, reasoning, "", written[: self._closed_at])

    def fail(self, key: str, values: Mapping[str, Value] | None = None) -> None:
        """The last event of a reply that broke."""
        self.generation.put(Failed(key, values or {}))

    def _tell(self, pieces: list[ReasoningPiece]) -> None:
        for piece in pieces:
            self.generation.put(piece)

    @property
    def _committed(self) -> int:
        return len(self.entry.keys) if self.entry else 0
