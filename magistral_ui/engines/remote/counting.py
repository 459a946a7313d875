"""Counts tokens without running the model: by the server's own tokenizer where it has one, else by length; it sends no chat.

Magistral's tokenizer joins nothing across the marks, so a prompt has as many tokens as its pieces and its marks together.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass

from magistral_ui.chat.pictures import Picture
from magistral_ui.chat.prompt import AssistantTurn, Prompt, UserTurn
from magistral_ui.engines.base import Measure
from magistral_ui.engines.recent import Recent
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.server import Server

CHARACTERS_A_TOKEN = 3.6
"""Measured with Mistral's public tokenizer (131,072 entries): English 4.6, German 4.1, French 4.3, LaTeX and code 2.7 to 3.2."""
KEPT = 32 * 2**20
"""Characters of texts whose counts are kept."""
AT_ONCE = 8
"""Questions to the server at the same time."""
PATCH = 28
LARGEST = 1_540
"""Pixels of a picture's longer side beyond which it is made smaller."""
MARKS_OF_TURN = 2
"""Tokens around a user's message, a system prompt or reasoning; a reply has one at its end."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of a text, and whether they are only reckoned."""

    tokens: int
    estimated: bool


class Counter:
    """Tokens of texts, each asked for once."""

    def __init__(self, server: Server, dialect: Dialect, model: str) -> None:
        self._server, self._dialect, self._model = server, dialect, model
        self._known: Recent[str, int] = Recent(KEPT, lambda _: 1)

    async def measure(self, prompt: Prompt) -> Measure:
        """What `prompt` costs; `estimated` where any of it had to be reckoned."""
        return measured(prompt, await self._counts(texts_of(prompt)))

    async def _counts(self, texts: Iterable[str]) -> dict[str, Counted]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(text: str) -> Counted:
            async with gate:
                return await self._count(text)

        wanted = list(dict.fromkeys(texts))
        return dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))

    async def _count(self, text: str) -> Counted:
        if not text:
            return Counted(0, False)
        known = self._known.get(text)
        if known is None:
            known = await self._asked(text)
            if known is None:
                return Counted(reckoned(text), True)
            self._known.put(text, known)
        return Counted(known, False)

    async def _asked(self, text: str) -> int | None:
        """The server's own count; None where it gives none."""
        if self._dialect.tokenizer is None:
            return None
        body: dict[str, object] = {"content": text, "add_special": False, "parse_special": False}
        if self._dialect.tokenizer == "vllm":
            body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        try:
            told = await self._server.ask("/tokenize", body)
        except (ConnectionError, TimeoutError):
            return None
        tokens = told.value.get("tokens") if told.fine and isinstance(told.value, dict) else None
        return len(tokens) if isinstance(tokens, list) else None


def texts_of(prompt: Prompt) -> list[str]:
    """All texts that make up a prompt, marks and pictures aside."""
    texts = [part.text for part in prompt.system]
    for turn in prompt.turns:
        texts += [turn.text] if isinstance(turn, UserTurn) else [turn.answer, turn.reasoning or ""]
    if prompt.resume is not None:
        texts += [prompt.resume.reasoning or "", prompt.resume.answer]
    return texts


def reckoned_measure(prompt: Prompt) -> Measure:
    """What `prompt` costs by the lengths of its texts alone."""
    return measured(prompt, {text: Counted(reckoned(text), True) for text in texts_of(prompt)})


def measured(prompt: Prompt, counts: dict[str, Counted]) -> Measure:
    """The whole prompt from the counts of its texts; pictures are reckoned from their sizes."""
    system = 1 + sum(counts[part.text].tokens + MARKS_OF_TURN * part.reasoning for part in prompt.system)
    system += MARKS_OF_TURN if prompt.system else 0
    per_message: dict[int, int] = {}
    reasoning: dict[int, int] = {}
    total = system
    pictures = {picture.digest: picture_tokens(picture) for picture in prompt.pictures}
    for turn in prompt.turns:
        tokens = _turn_tokens(turn, counts, pictures)
        total += tokens
        if turn.message is not None:
            per_message[turn.message] = tokens
        if turn.message is not None and isinstance(turn, AssistantTurn):
            reasoning[turn.message] = _reasoning_tokens(turn.reasoning, counts)
    if prompt.resume is not None:
        total += _reasoning_tokens(prompt.resume.reasoning, counts) + counts[prompt.resume.answer].tokens
        total -= bool(prompt.resume.reasoning) and not prompt.resume.closed
    estimated = bool(pictures) or any(each.estimated for each in counts.values())
    return Measure(total, system, per_message, reasoning, pictures, estimated=estimated)


def _turn_tokens(turn: UserTurn | AssistantTurn, counts: dict[str, Counted], pictures: dict[str, int]) -> int:
    if isinstance(turn, UserTurn):
        return MARKS_OF_TURN + counts[turn.text].tokens + sum(pictures[picture.digest] for picture in turn.pictures)
    return _reasoning_tokens(turn.reasoning, counts) + counts[turn.answer].tokens + 1


def _reasoning_tokens(reasoning: str | None, counts: dict[str, Counted]) -> int:
    return counts[reasoning].tokens + MARKS_OF_TURN if reasoning else 0


def reckoned(text: str) -> int:
    """About how many tokens `text` has: letters beyond ASCII cost more."""
    wide = sum(1 for letter in text if ord(letter) > 0x2FF)
    return math.ceil((len(text) - wide) / CHARACTERS_A_TOKEN + wide * 0.8)


def picture_tokens(picture: Picture) -> int:
    """Tokens of a picture for Magistral: one for each 28 × 28 pixels, and one for the end of each row."""
    ratio = max(picture.width, picture.height) / LARGEST
    width, height = picture.width, picture.height
    if ratio > 1:
        width, height = max(1, round(width / ratio)), max(1, round(height / ratio))
    columns, rows = (width - 1) // PATCH + 1, (height - 1) // PATCH + 1
    return (columns + 1) * rows
