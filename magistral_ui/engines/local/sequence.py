"""One request on its way through the engine: its tokens, how many of them have been read, and the text of each new one.

It needs no torch: what runs the model takes its tokens from here and hands back the next one.
"""

from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from magistral_ui.chat.events import Failed, Finished, FinishReason, Notice, Prefilling, Queued, Reclassified
from magistral_ui.chat.reasoning import ReasoningPiece, TokenReader
from magistral_ui.chat.reasoning_control import LoopGuard, ReasoningControl, reasoning_limit
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.drafting import Drafter, PromptLookup
from magistral_ui.engines.local.prefix_cache import common_prefix
from magistral_ui.engines.local.sampling_state import SamplingState
from magistral_ui.errors import PromptTooLong, Value
from magistral_ui.fairness import owner_of
from magistral_ui.models.memory import PAGE_TOKENS

if TYPE_CHECKING:  # a sequence only handles them, and mistral-common takes a while to import
    from magistral_ui.engines.local.image_input import ImageInput
    from magistral_ui.engines.local.prefix_cache import CacheEntry
    from magistral_ui.engines.local.tokenizer import EncodedPrompt, Tokenizer


class WrittenRun(NamedTuple):
    """What became of the tokens that one step has drawn for a sequence."""

    more: bool
    """Whether there is more to write."""
    drafts: int
    """How many of the drafts were right, so that their keys and values hold."""


class Sequence:
    """`tokens` are those of prompt and reply; the first len(entry.keys) of them are in the cache, the others are unread.

    One unread token is a decode step, more are prefill: both are the same forward.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt: "EncodedPrompt",
        generation: Generation,
        tokenizer: "Tokenizer",
        limit: int,
    ) -> None:
        """`limit` is the number of tokens that the reply may have, never more than fit after the prompt."""
        params = request.params
        self.visitor = request.visitor
        self.owner = owner_of(request.visitor)
        self.generation = generation
        self.prompt = prompt
        self.tokens = list(prompt.ids)
        self.keys = list(prompt.keys)
        self.entry: CacheEntry | None = None
        self.reused = 0
        self.drafter: Drafter = PromptLookup(tokenizer.first_text_token, partial(tokenizer.replies_of, request.visitor))
        self.drafts: list[int] = []
        """Guesses at the next tokens, which run in the same step as the last token."""
        self._answer_now = False
        self.admitted = self.turn = 0
        """The scheduler's numbers, see `schedule.SchedulableSequence`."""
        self._told_position = 0
        self._tokenizer = tokenizer
        self.limit = limit
        self._reader: TokenReader = tokenizer.reader()
        penalised = set(prompt.ids) if params.repetition_penalty != 1.0 else set()
        self.sampling = SamplingState(params, penalised, prompt.resumed)
        self._control = ReasoningControl(
            tokenizer.control_tokens(), reasoning_limit(limit, params.reasoning_budget), LoopGuard()
        )
        self._closed_at: int | None = None  # tokens of the reply before its answer
        generation.count_prompt(len(prompt.ids))
        self._wanted = params.max_tokens
        for token in prompt.ids[len(prompt.ids) - prompt.resumed :]:  # as if this sequence had written them
            self._reader.feed(token)
            self._control.took(token, self._reader.channel)
        if prompt.resumed:
            self._reader.mark_resumed()

    @property
    def stopped(self) -> bool:
        return self.generation.stop_requested

    @property
    def end_of_turn(self) -> int:
        """The token that ends a reply."""
        return self._tokenizer.end_of_turn

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def written(self) -> int:
        return len(self.tokens) - len(self.prompt.ids)

    @property
    def unread(self) -> int:
        return len(self.tokens) - self._committed

    @property
    def draftable(self) -> int:
        """How many drafts may run behind the last token: another token still follows them, and they take no page of their own."""
        return min(max(0, self.limit - self.written - 1), -self.length % PAGE_TOKENS)

    @property
    def prefilling(self) -> bool:
        """Whether the prompt (or, after a preemption, the whole sequence) is still being read."""
        return self.unread > 1

    @property
    def held_pages(self) -> int:
        return self.entry.pages if self.entry else 0

    def tell_position(self, position: int) -> None:
        """Say which place in the queue it has, if it has moved forward.

        One that comes back after a preemption stands before the others for a while, which moves nobody back.
        """
        if not self._told_position or position < self._told_position:
            self._told_position = position
            self.generation.put(Queued(position))

    def leave_queue(self) -> None:
        """It has a slot: should it have to wait again, any place is news."""
        self._told_position = 0

    def start(self, entry: "CacheEntry") -> None:
        """Continue from `entry`, which holds the beginning of this sequence's tokens."""
        self.entry = entry
        self.reused = len(entry.keys)
        if not self.written:
            self.generation.count_prompt(len(self.prompt.ids), self.reused)
            self.generation.put(Prefilling(self.reused, len(self.tokens), self.reused))

    def next_tokens(self, count: int) -> list[int]:
        """The next `count` tokens to run, and the drafts behind them."""
        return self.tokens[self._committed : self._committed + count] + self.drafts

    def unseen_images(self, count: int) -> Iterator["ImageInput"]:
        """The images among the next `count` tokens whose features are still to be made."""
        for image, _, _ in self._images(count):
            if image.features is None:
                yield image

    def image_rows(self, count: int, image_token: int | None) -> Iterator[tuple["ImageInput", list[int], int]]:
        """Each image among the next `count` tokens, which of these take its features, and which feature comes first."""
        first = self._committed
        for image, begin, end in self._images(count):
            start = max(first, begin)
            rows = [i - first for i in range(start, min(first + count, end)) if image.tokens[i - begin] == image_token]
            yield image, rows, image.tokens[: start - begin].count(image_token or 0)

    def _images(self, count: int) -> Iterator[tuple["ImageInput", int, int]]:
        """The images among the next `count` tokens, with where all their tokens begin and end."""
        first = self._committed
        for span in self.prompt.image_spans:
            begin, end = span.start, span.start + len(span.input.tokens)
            if begin < first + count and end > first:
                yield span.input, begin, end

    def read(self, count: int) -> None:
        """Report that `count` more tokens are in the cache."""
        if count > 1 and not self.written:
            self.generation.put(Prefilling(self._committed, len(self.tokens), self.reused))

    def forced_token(self) -> int | None:
        """The token that must come next, or None if the model may choose. To be asked once for each token.

        For the tokens that drafts add to a step, `write_run` asks: what is known of Answer now holds for the whole step.
        """
        self._answer_now = self.generation.answer_now_requested
        return self._control.forced(self._reader.channel, self._answer_now)

    def banned_tokens(self) -> tuple[int, ...]:
        return self._control.banned()

    def accept(self, token: int, answer_now: bool) -> bool:
        """Emit a token that was chosen elsewhere for this reply; returns whether there is more to write.

        `answer_now` says whether the answer had been requested by then, so that control reaches the same state here.
        """
        self._control.forced(self._reader.channel, answer_now)
        return self.write(token)

    def resume_after(self, written: Iterable[tuple[int, bool]]) -> None:
        """Continue after tokens that were chosen and emitted elsewhere, as by `accept`."""
        for token, answer_now in written:
            self._control.forced(self._reader.channel, answer_now)
            self._control.notice = None
            self._took(token)

    def _took(self, token: int) -> list[ReasoningPiece]:
        """Take one more token of the reply; returns the text that is complete now."""
        self.sampling.took(token)
        self.tokens.append(token)
        self.keys.append(token)
        was = self._reader.channel
        pieces = self._reader.feed(token)
        reclassified = any(isinstance(piece, Reclassified) for piece in pieces)
        if reclassified or (was == "reasoning" and self._reader.channel == "answer"):
            self._closed_at = self.written
        self._control.took(token, self._reader.channel)
        return pieces

    def write(self, token: int) -> bool:
        """Emit the next token of the reply; returns whether there is more to write."""
        if self._control.notice is not None:
            self.generation.put(Notice(self._control.notice))
            self._control.notice = None
        self.generation.count_first_token()
        if token == self._tokenizer.end_of_turn:
            self.finish("stop")
            return False
        self._tell(self._took(token))
        if self.written >= self.limit:
            if self.limit < self._wanted:
                self.generation.put(Notice("max_tokens_lowered", {"limit": self.limit}))
            self.finish("length")
            return False
        return True

    def write_run(self, tokens: abc.Sequence[int], banned: tuple[int, ...] = ()) -> WrittenRun:
        """Emit the first of `tokens`, and each further one whose drafts before it were right: as if they had come one by one.

        The first is what `forced_token` said, or was drawn; each further one was drawn behind a draft, from what the model
        says if all drafts up to it are right. All were drawn while the `banned` tokens were.
        """
        drafts, self.drafts, start = self.drafts, [], len(self.tokens)
        more = self.write(tokens[0])
        for draft, token in zip(drafts, tokens[1:], strict=False):
            if not more or self.tokens[-1] != draft or self.banned_tokens() != banned:
                break
            forced = self._control.forced(self._reader.channel, self._answer_now)
            more = self.write(token if forced is None else forced)
        written = self.tokens[start:]
        right = common_prefix(written, drafts)
        return WrittenRun(more, min(right, len(written) - 1) if more else right)

    def finish(self, why: FinishReason) -> None:
        """Put the last event of a reply that did not fail; its tokens are remembered for the next turn."""
        self._tell(self._reader.finish(cut=why != "stop"))
        if not self.prompt.resumed:
            self._remember(self.generation.reasoning or None, self.generation.answer)
        self.generation.put(Finished(why))

    def _remember(self, reasoning: str | None, answer: str) -> None:
        """Remember the tokens of the whole reply, and of its reasoning alone, from which it may be answered again."""
        written = self.tokens[len(self.prompt.ids) :]
        closed = reasoning is None or self._closed_at is not None
        self._tokenizer.remember_reply(self.visitor, reasoning, answer, written, closed=closed)
        if reasoning is not None and self._closed_at is not None:
            self._tokenizer.remember_reply(self.visitor, reasoning, "", written[: self._closed_at])

    def fail(self, key: str, values: Mapping[str, Value] | None = None) -> None:
        self.generation.put(Failed(key, values or {}))

    def _tell(self, pieces: list[ReasoningPiece]) -> None:
        for piece in pieces:
            self.generation.put(piece)

    @property
    def _committed(self) -> int:
        return len(self.entry.keys) if self.entry else 0


def encoded_within(
    context_length: int, tokenizer: "Tokenizer", request: GenerationRequest
) -> "tuple[EncodedPrompt, int]":
    """The prompt, and how many tokens its reply may have; raises PromptTooLong if it leaves no room for one."""
    encoded = tokenizer.encode(request.prompt, request.visitor)
    room = context_length - len(encoded.ids)
    if room < 1:
        raise PromptTooLong(tokens=len(encoded.ids), limit=context_length)
    return encoded, min(request.params.max_tokens, room)
