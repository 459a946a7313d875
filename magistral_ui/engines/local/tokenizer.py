"""Encodes prompts with mistral-common (in place of a chat template), message by message, with images; it knows no model.

The pieces, joined, are what mistral-common's whole pipeline gives (a test compares them). Encoding by message allows an earlier
answer to go in as the very tokens in which it was written. Encoding its text again could split it into other tokens, and all
that the cache holds from there on would be lost.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from cachetools import LRUCache, cachedmethod
from mistral_common.protocol.instruct.chunk import ContentChunk, TextChunk, ThinkChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage
from mistral_common.protocol.instruct.request import ModelSettings, ReasoningEffort
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import AssistantTurn, Prompt, SystemPart, UserTurn, user_parts
from magistral_ui.chat.reasoning import TextTokenReader, TokenIdReader, TokenReader
from magistral_ui.chat.reasoning_control import ControlTokens
from magistral_ui.chat.sampling import Effort
from magistral_ui.engines.base import Measure
from magistral_ui.engines.local.image_input import ImageInput, ImageProcessor, ImageSpan
from magistral_ui.models.cards import ModelCard

CACHED_REPLY_TOKENS = 2_000_000
"""Tokens of replies that are remembered, of all visitors."""
CACHED_TEXT_TOKENS = 1_000_000
"""Tokens of all other texts that are remembered."""
CACHED_COUNTS = 20_000
"""Number of replies whose reasoning has its token count remembered."""


Look = Callable[[ImageFile, str], ImageInput]


@dataclass(slots=True)
class EncodedPrompt:
    """A prompt as the model reads it. `keys` are the `ids`, except for image tokens, whose keys stand for the image's content."""

    ids: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    image_spans: list[ImageSpan] = field(default_factory=list)
    system: int = 0
    """Tokens of the beginning of text, the system prompt and the model's settings."""
    common: int = 0
    """Leading tokens that all visitors share: the beginning and the system prompt if it is the model's own, else 0."""
    per_message: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    """Message id → where its tokens begin."""
    resumed: int = 0
    """Tokens at the end of the prompt that belong to the reply, which is resumed from them."""


class Tokenizer:
    """One model's tokenizer with its image preparation; thread-safe. Remembers, per visitor, what is costly to make again."""

    def __init__(
        self,
        tekken: Path,
        card: ModelCard,
        own_system: tuple[SystemPart, ...],
        image_side: int = 0,
        *,
        pixels: bool = True,
    ) -> None:
        """`tekken` is the model's tekken.json; `own_system` is the system prompt that all visitors get by default.

        Images are scaled down to `image_side` pixels, if the model would take larger ones. Without `pixels`, they are not
        decoded: prompts have their tokens only.
        """
        self.tokenizer = MistralTokenizer.from_file(str(tekken))
        self._instruct: Any = self.tokenizer.instruct_tokenizer
        self._base: Any = self._instruct.tokenizer
        self._card = card
        self._own_system = own_system
        self._images = ImageProcessor(self._instruct.image_encoder, image_side)
        self.image_grid = self._images.grid
        self._look = self._images.prepare if pixels else self._images.outline
        self._lock = threading.Lock()
        self._replies: LRUCache[tuple[str, str | None, str, bool], list[int]] = LRUCache(CACHED_REPLY_TOKENS, len)
        self._texts: LRUCache[tuple[str, str | tuple[SystemPart, ...]], list[int]] = LRUCache(CACHED_TEXT_TOKENS, len)
        self._counts: LRUCache[tuple[str, str], int] = LRUCache(CACHED_COUNTS)
        self.begin_of_text: int = self._base.bos_id
        self.end_of_turn: int = self._base.eos_id
        self.vocabulary: int = self._base.n_words
        self.first_text_token: int = self._base.num_special_tokens
        """Tokens below it are control tokens."""
        self._begin, self._end = self._mark_ids()
        self._pieces: dict[int, bytes] = {}

    def encode(self, prompt: Prompt, visitor: str = "") -> EncodedPrompt:
        return self._encode(prompt, visitor, self._look)

    def measure(self, prompt: Prompt, visitor: str = "") -> tuple[Measure, EncodedPrompt]:
        """What `prompt` costs in tokens. Its last message is assumed to be still in writing, and is not remembered."""
        out = self._encode(prompt, visitor, self._images.outline, measured=True)
        images = {span.input.image.digest: len(span.input.tokens) for span in out.image_spans}
        earlier = [turn for turn in prompt.turns if isinstance(turn, AssistantTurn) and turn.message is not None]
        reasoning = {turn.message or 0: self._count(visitor, turn.reasoning or turn.left_out) for turn in earlier}
        return Measure(len(out.ids), out.system, out.per_message, reasoning, images), out

    def _encode(self, prompt: Prompt, visitor: str, look: Look, *, measured: bool = False) -> EncodedPrompt:
        out = EncodedPrompt()
        self._append(out, self._instruct.start())
        self._append(out, self._remembered(visitor, prompt.system))
        if prompt.system == self._own_system:
            out.common = len(out.ids)
        self._append(out, self._settings(prompt.effort))
        out.system = len(out.ids)
        users: list[UserTurn] = []
        for turn in prompt.turns:
            if isinstance(turn, UserTurn):
                users.append(turn)
                continue
            self._append_users(out, users, visitor, look)
            users = []
            self._append_assistant(out, turn, visitor)
        self._append_users(out, users, visitor, look, remember=not measured)
        if prompt.resume is not None:
            resume = prompt.resume
            ids = self._reply_ids(visitor, resume.reasoning, resume.answer, resume.closed)
            self._append(out, ids)
            out.resumed = len(ids)
        return out

    def remember_reply(
        self, visitor: str, reasoning: str | None, answer: str, ids: Sequence[int], *, closed: bool = True
    ) -> None:
        """`ids` are the tokens in which the model wrote this reply, without the end of the turn.

        `closed` is False if it ended in the middle of the reasoning.
        """
        self._remember((visitor, reasoning, answer, closed), list(ids))
        text = answer.rstrip(" ")
        if text != answer and (reasoning is None or self._begin is None):  # a resumed reply lacks them, see `_reply`
            kept, spaces = list(ids), len(answer) - len(text)
            while spaces > 0 and kept and self.token_bytes(kept[-1]) == b" " * len(self.token_bytes(kept[-1])):
                spaces -= len(self.token_bytes(kept.pop()))
            if spaces == 0:
                self._remember((visitor, reasoning, text, closed), kept)

    def replies_of(self, visitor: str) -> list[list[int]]:
        """The tokens of the replies that are remembered of a visitor, the oldest first."""
        with self._lock:
            return [self._replies[key] for key in [*self._replies] if key[0] == visitor]

    def _remember(self, key: tuple[str, str | None, str, bool], ids: list[int]) -> None:
        with self._lock, suppress(ValueError):  # larger than the whole cache
            self._replies[key] = ids

    def reader(self) -> TokenReader:
        """A reader that separates this model's reasoning from its answer, from a reply's first token on."""
        if self._begin is not None and self._end is not None:
            return TokenIdReader(self._begin, self._end, self.token_bytes)
        own, *more = self._card.textual_marks
        return TextTokenReader(*own, self.token_bytes, following=more)

    def forget(self, visitor: str) -> None:
        """Drop what is remembered of a visitor's images, texts and replies."""
        self._images.forget(visitor)
        caches: tuple[LRUCache[Any, Any], ...] = (self._replies, self._texts, self._counts)
        with self._lock:
            for cache in caches:
                for key in [key for key in cache if key[0] == visitor]:
                    del cache[key]

    def control_tokens(self) -> ControlTokens:
        if self._begin is not None and self._end is not None:
            return ControlTokens((self._begin,), (self._end,), self.end_of_turn)
        begin, end = self._card.reasoning_marks
        return ControlTokens(tuple(self._text(f"{begin}\n")), tuple(self._text(f"\n{end}\n")), self.end_of_turn)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token; b"" for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            special = self._base.is_special(token)
            piece = b"" if special else self._base.id_to_byte_piece(token, SpecialTokenPolicy.IGNORE)
            self._pieces[token] = piece
        return piece

    @property
    def control_texts(self) -> tuple[str, ...]:
        """How each control token is spelled, such as `[INST]`, by its id: they are the first ones."""
        return tuple(map(self._base.id_to_piece, range(self._base.num_special_tokens)))

    def _mark_ids(self) -> tuple[int | None, int | None]:
        if self._card.marks == "text":
            return None, None
        begin, end = self._card.reasoning_marks
        return self._base.get_special_token(begin), self._base.get_special_token(end)

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self._base.encode(text, bos=False, eos=False)
        return ids

    @cachedmethod(attrgetter("_texts"), lock=attrgetter("_lock"))
    def _remembered(self, visitor: str, said: str | tuple[SystemPart, ...]) -> list[int]:  # noqa: ARG002
        """The ids of a text or a system prompt, encoded once: the page measures whenever its visitor stops typing."""
        return self._text(said) if isinstance(said, str) else self._system(said)

    @cachedmethod(attrgetter("_counts"), lock=attrgetter("_lock"))
    def _count(self, visitor: str, reasoning: str) -> int:  # noqa: ARG002
        """Tokens of reasoning, its marks included."""
        return len(self._text(reasoning)) + 2 if reasoning else 0

    def _system(self, parts: tuple[SystemPart, ...]) -> list[int]:
        if not parts:
            return []
        chunks: list[ContentChunk] = [
            ThinkChunk(thinking=p.text) if p.reasoning else TextChunk(text=p.text) for p in parts
        ]
        ids: list[int] = self._instruct.encode_system_message(SystemMessage(content=chunks))[0]
        return ids

    def _settings(self, effort: Effort | None) -> list[int]:
        """`[MODEL_SETTINGS]{"reasoning_effort": …}` if the tokenizer (v15) has it, with the nearest effort that it allows."""
        builder = self._base.model_settings_builder
        allowed = builder.reasoning_effort.values if builder and builder.reasoning_effort else ()
        if not allowed:
            return []
        order = list(ReasoningEffort)
        wanted = order.index(ReasoningEffort(effort or "high"))
        # Only "none" means no reasoning, however near it is to another effort.
        near = [each for each in allowed if (each == "none") == (effort == "none")] or allowed
        chosen = min(near, key=lambda each: abs(order.index(each) - wanted))
        ids: list[int] = self._instruct._encode_settings(ModelSettings(reasoning_effort=chosen))
        return ids

    def _append_users(
        self, out: EncodedPrompt, turns: list[UserTurn], visitor: str, look: Look, *, remember: bool = True
    ) -> None:
        """Several user turns in a row are one message for the model."""
        if not turns:
            return
        start = len(out.ids)
        self._append(out, [self._instruct.BEGIN_INST])
        for part in user_parts(turns):
            if isinstance(part, str):
                self._append(out, self._remembered(visitor, part) if remember else self._text(part))
            else:
                self._append_image(out, look(part, visitor))
        self._append(out, [self._instruct.END_INST])
        if turns[-1].message is not None:
            out.per_message[turns[-1].message] = len(out.ids) - start
            out.starts[turns[-1].message] = start

    def _append_assistant(self, out: EncodedPrompt, turn: AssistantTurn, visitor: str) -> None:
        ids = self._reply_ids(visitor, turn.reasoning, turn.answer, True)
        if turn.reasoning is None and self._begin in ids:  # empty reasoning counts as none
            ids = self._reply(None, turn.answer, closed=True)
        self._append(out, ids)
        self._append(out, [self.end_of_turn])
        if turn.message is not None:
            out.per_message[turn.message] = len(ids) + 1
            out.starts[turn.message] = len(out.ids) - len(ids) - 1

    @cachedmethod(attrgetter("_replies"), lock=attrgetter("_lock"))
    def _reply_ids(self, visitor: str, reasoning: str | None, answer: str, closed: bool) -> list[int]:  # noqa: ARG002
        """The tokens in which the reply was written, or those of its text if they are not remembered."""
        return self._reply(reasoning, answer, closed=closed)

    def _reply(self, reasoning: str | None, answer: str, *, closed: bool) -> list[int]:
        if self._begin is None and reasoning is not None:
            begin, stop = self._card.reasoning_marks
            answer = f"{begin}\n{reasoning}" + (f"\n{stop}\n{answer}" if closed else "")
            reasoning = None
        chunks: list[ContentChunk] = []
        if reasoning is not None:
            chunks.append(ThinkChunk(thinking=reasoning, closed=closed))
        else:  # mistral-common leaves out the spaces at the end of a reply that is nothing but text
            answer = answer.rstrip(" ")
        if answer:
            chunks.append(TextChunk(text=answer))
        if not chunks:
            return []
        message = AssistantMessage(content=chunks, prefix=True)
        ids: list[int] = self._instruct.encode_assistant_message(message, False)
        return ids

    def _append_image(self, out: EncodedPrompt, image: ImageInput) -> None:
        start = len(out.ids)
        out.image_spans.append(ImageSpan(start, image))
        out.ids += image.tokens
        content, image_token = int(image.image.digest[:32], 16) << 20, self._images.image_token
        out.keys += [-1 - (content | i) if token == image_token else token for i, token in enumerate(image.tokens)]

    @staticmethod
    def _append(out: EncodedPrompt, ids: list[int]) -> None:
        out.ids += ids
        out.keys += ids
