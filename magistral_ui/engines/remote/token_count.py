"""Counts tokens with the server's tokenizer, or estimates them from the length of the text; it requests no reply.

Magistral's tokenizer never merges across its marks, so a prompt has as many tokens as its parts and marks together. What
another model's template adds around the parts is measured by counting a whole prompt.
"""

import asyncio
import math
from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from cachetools import LRUCache

from magistral_ui.chat.prompt import AssistantTurn, Prompt, Turn, UserTurn
from magistral_ui.engines.base import Measure
from magistral_ui.engines.remote.completion_body import messages_of, resumed_fields
from magistral_ui.engines.remote.dialects import TEMPLATE_FIELDS, effort_fields
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.server_profile import ServerProfile
from magistral_ui.models.image_grid import PIXTRAL, ImageGrid

CHARACTERS_PER_TOKEN = 3.6
"""Measured with Mistral's public tokenizer (131,072 entries): English 4.6, German 4.1, French 4.3, LaTeX and code 2.7 to 3.2."""
CACHED_TOKENS = 8_000_000
"""Total tokens of the texts whose counts are cached: about 30 million characters."""
PARALLEL_REQUESTS = 8
MAX_WHOLE_PROMPT_CHARACTERS = 20_000
"""Prompts of up to this many characters are counted whole each time; of longer ones, only what has changed."""
LIMIT_MARGIN_TOKENS = 256
"""A longer prompt is counted whole too if it comes within this many tokens of the limit."""
CACHED_SHAPES = 256
"""Shapes of prompts whose template tokens are cached."""
MAX_TEMPLATE_TOKENS_PER_TURN = 64
"""An upper bound on the tokens that a template adds per turn."""
MARKS_PER_TURN = 2
"""Tokens around a user message, a system prompt or reasoning; a reply has one at its end."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of a text, and whether they are an estimate."""

    tokens: int
    estimated: bool


class TokenCounter:
    """Counts the tokens of texts, and caches the counts."""

    def __init__(self, server: ServerClient, profile: ServerProfile) -> None:
        self._server, self._profile = server, profile
        self._dialect, self._model = profile.dialect, profile.model
        self._known: LRUCache[str, int] = LRUCache(CACHED_TOKENS, lambda count: count + 1)
        self._template_tokens: LRUCache[Hashable, int] = LRUCache(CACHED_SHAPES)

    async def measure(self, prompt: Prompt, limit: int | None = None) -> Measure:
        """The tokens of `prompt`; `estimated` if any part was estimated. Near `limit`, exact if the server can count."""
        texts = texts_of(prompt)
        counts, profile = await self._counts(texts), self._profile
        pieces = measured(prompt, counts, profile.image_grid, sent=self._dialect.history != "left_out")
        if prompt.images and not profile.counts_images:
            pieces = replace(pieces, estimated=True)
        if self._dialect.tokenizer is None:
            return pieces
        size, shape = sum(map(len, texts)), _shape(prompt)
        template_tokens = self._template_tokens.get(shape)
        near = limit is not None and (
            template_tokens is None or pieces.total + template_tokens + LIMIT_MARGIN_TOKENS > limit
        )
        if template_tokens is None or near or size < MAX_WHOLE_PROMPT_CHARACTERS:
            template_tokens = await self._count_template_tokens(prompt, pieces)
            if template_tokens is None:  # what Magistral's template adds is known
                return pieces if self._profile.card.key != "remote" else replace(pieces, estimated=True)
            self._template_tokens[shape] = template_tokens
        return replace(pieces, total=pieces.total + template_tokens, system=max(0, pieces.system + template_tokens))

    async def _count_template_tokens(self, prompt: Prompt, pieces: Measure) -> int | None:
        """The tokens that the server's template adds around the texts, beyond what Magistral's adds; None if unknown."""
        without_images = replace(prompt, turns=tuple(map(_without_images, prompt.turns)))
        body: dict[str, Any] = {"model": self._model}
        body["messages"] = messages_of(without_images, self._dialect, self._profile.card.reasoning_marks, lambda _: "")
        body |= resumed_fields(prompt.resume, self._dialect) if prompt.resume else {}
        body |= {name: value for name, value in effort_fields(prompt, self._dialect).items() if name in TEMPLATE_FIELDS}
        if self._dialect.tokenizer == "llama_cpp":
            rendered = (await self._server.try_ask("/apply-template", body)).fields.get("prompt")
            if not isinstance(rendered, str):
                return None
            body = {"model": self._model, "content": rendered, "add_special": True, "parse_special": True}
        tokens = (await self._server.try_ask("/tokenize", body)).fields.get("tokens")
        if not isinstance(tokens, list) or not tokens:
            return None
        return len(tokens) - pieces.total + sum(pieces.images[image.digest] for image in prompt.images)

    async def _counts(self, texts: Iterable[str]) -> dict[str, TokenCount]:
        gate = asyncio.Semaphore(PARALLEL_REQUESTS)

        async def one(text: str) -> TokenCount:
            async with gate:
                return await self._count(text)

        wanted = list(dict.fromkeys(texts))
        return dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))

    async def _count(self, text: str) -> TokenCount:
        if not text:
            return TokenCount(0, False)
        known = self._known.get(text)
        if known is None:
            known = await self._asked(text)
            if known is None:
                return TokenCount(estimated_tokens(text), True)
            with suppress(ValueError):  # larger than the whole cache
                self._known[text] = known
        return TokenCount(known, False)

    async def _asked(self, text: str) -> int | None:
        if self._dialect.tokenizer is None:
            return None
        body: dict[str, Any] = {"model": self._model, "content": text, "add_special": False, "parse_special": False}
        if self._dialect.tokenizer == "vllm":
            body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        tokens = (await self._server.try_ask("/tokenize", body)).fields.get("tokens")
        return len(tokens) if isinstance(tokens, list) else None


def texts_of(prompt: Prompt) -> list[str]:
    """All texts of a prompt, without marks and images."""
    texts = [part.text for part in prompt.system]
    for turn in prompt.turns:
        texts += [turn.text] if isinstance(turn, UserTurn) else [turn.answer, turn.reasoning or ""]
    if prompt.resume is not None:
        texts += [prompt.resume.reasoning or "", prompt.resume.answer]
    return texts


def estimated_measure(prompt: Prompt) -> Measure:
    """The tokens of `prompt`, estimated from the lengths of its texts."""
    return measured(prompt, {text: TokenCount(estimated_tokens(text), True) for text in texts_of(prompt)}, None)


def certainly_fits(prompt: Prompt, limit: int, grid: ImageGrid | None = None) -> bool:
    """Whether `prompt` certainly fits, without counting: no text has more tokens than bytes."""
    size = sum(len(text.encode("utf-8", "replace")) for text in texts_of(prompt))
    spent = sum(_image_tokens(prompt, grid).values()) + MAX_TEMPLATE_TOKENS_PER_TURN * (len(prompt.turns) + 3)
    return size + spent < limit


def _shape(prompt: Prompt) -> Hashable:
    """The structure of a prompt without its texts: a template adds the same number of tokens to prompts of one shape."""
    turns = tuple(
        ("user", bool(turn.text)) if isinstance(turn, UserTurn) else ("reply", bool(turn.answer), bool(turn.reasoning))
        for turn in prompt.turns
    )
    resume = (bool(prompt.resume.reasoning), prompt.resume.closed, bool(prompt.resume.answer)) if prompt.resume else ()
    return tuple(part.reasoning for part in prompt.system), turns, resume, prompt.effort


def _without_images(turn: Turn) -> Turn:
    return replace(turn, images=()) if isinstance(turn, UserTurn) else turn


def measured(prompt: Prompt, counts: dict[str, TokenCount], grid: ImageGrid | None, *, sent: bool = True) -> Measure:
    """The tokens of the whole prompt, from the counts of its texts and the `grid` of its images, or Magistral's.

    Earlier reasoning costs nothing unless it is `sent`.
    """
    system = 1 + sum(counts[part.text].tokens + MARKS_PER_TURN * part.reasoning for part in prompt.system)
    system += MARKS_PER_TURN if prompt.system else 0
    per_message: dict[int, int] = {}
    reasoning: dict[int, int] = {}
    total = system
    images = _image_tokens(prompt, grid)
    for turn in prompt.turns:
        turn = turn if sent or isinstance(turn, UserTurn) else replace(turn, reasoning=None)
        tokens = _turn_tokens(turn, counts, images)
        total += tokens
        if turn.message is not None:
            per_message[turn.message] = tokens
        if turn.message is not None and isinstance(turn, AssistantTurn):
            reasoning[turn.message] = _reasoning_tokens(turn.reasoning, counts)
    if prompt.resume is not None:
        total += _reasoning_tokens(prompt.resume.reasoning, counts) + counts[prompt.resume.answer].tokens
        total -= bool(prompt.resume.reasoning) and not prompt.resume.closed
    estimated = any(each.estimated for each in counts.values())
    return Measure(total, system, per_message, reasoning, images, estimated=estimated)


def _image_tokens(prompt: Prompt, grid: ImageGrid | None) -> dict[str, int]:
    return {image.digest: (grid or PIXTRAL).tokens(image.width, image.height) for image in prompt.images}


def _turn_tokens(turn: UserTurn | AssistantTurn, counts: dict[str, TokenCount], images: dict[str, int]) -> int:
    if isinstance(turn, UserTurn):
        return MARKS_PER_TURN + counts[turn.text].tokens + sum(images[image.digest] for image in turn.images)
    return _reasoning_tokens(turn.reasoning, counts) + counts[turn.answer].tokens + 1


def _reasoning_tokens(reasoning: str | None, counts: dict[str, TokenCount]) -> int:
    return counts[reasoning].tokens + MARKS_PER_TURN if reasoning else 0


def estimated_tokens(text: str) -> int:
    """About how many tokens `text` has; letters of non-Latin scripts cost more."""
    wide = sum(1 for letter in text if ord(letter) > 0x2FF)
    return math.ceil((len(text) - wide) / CHARACTERS_PER_TOKEN + wide * 0.8)
