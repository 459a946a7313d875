"""Runs a step on the device: cache entries, image features, one forward, one draw of all next tokens; it decides nothing.

This is the only part of a step that has effects on the device or needs torch. A failure comes back as a value, beside the
results of the others: if a forward of several sequences breaks, each is run alone, so that only those at fault fail.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import torch

from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.image_input import ImageInput
from magistral_ui.engines.local.prefix_cache import CacheEntry, PrefixCache
from magistral_ui.engines.local.sampler import sample_batch
from magistral_ui.engines.local.sampling_state import Draw
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.load_errors import is_out_of_memory

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = tuple[Sequence, int]
"""A sequence and how many of its tokens to run: one while it decodes."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """What a step made of one sequence."""

    sequence: Sequence
    count: int
    """Tokens that are in the cache now."""
    tokens: tuple[int, ...] = ()
    """What comes next in the reply, and then behind each of its drafts if that is right; empty while there is more to read."""
    banned: tuple[int, ...] = ()
    """What was banned when they were drawn."""
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is to be drawn for one sequence: `rows` of the logits, by `draws`."""

    result: RowResult
    rows: list[int]
    draws: list[Draw]

    def with_drawn(self, drawn: list[int | Exception]) -> RowResult:
        """The result with what was drawn. A draw that failed behind a draft counts for nothing: it is left to the next step."""
        tokens = list(self.result.tokens)
        for each in drawn:
            if isinstance(each, int):
                tokens.append(each)
            elif tokens:
                break
            else:
                return replace(self.result, error=each)
        return replace(self.result, tokens=tuple(tokens))


class Executor:
    """One model and its cache. All methods are called from the thread that owns the model."""

    def __init__(self, model: Decoder, cache: PrefixCache, image_token: int | None) -> None:
        self._model, self._cache, self._image_token = model, cache, image_token

    @property
    def pages(self) -> int:
        """All pages for keys and values."""
        return self._model.pool.pages

    def take(self, sequence: Sequence) -> CacheEntry:
        """A cache entry that holds as much of the sequence's prefix as earlier turns have left."""
        return self._retry_after_oom(lambda: self._cache.take(sequence.visitor, sequence.keys))

    def give_back(self, sequence: Sequence) -> None:
        """Keep what the sequence has read for the next turn, as long as there is room."""
        entry, sequence.entry = sequence.entry, None
        if entry is None:
            return
        entry.rollback()
        try:
            self._cache.give_back(entry)
        except Exception as error:  # making room must never cost a reply
            log.error("an entry could not be given back", exc_info=error)

    def run(self, rows: list[Row]) -> list[RowResult]:
        failed, ready = [], []
        for sequence, count in rows:
            try:
                self._encode_images(sequence, count)
                ready.append((sequence, count))
            except Exception as error:
                failed.append(RowResult(sequence, count, error=error))
        return [*failed, *self._forward(ready)]

    def failure_key(self, error: Exception) -> str:
        return "out_of_memory" if is_out_of_memory(error) else "generation_failed"

    def _encode_images(self, sequence: Sequence, count: int) -> None:
        for image in sequence.unseen_images(count):
            self._retry_after_oom(lambda shown=image: self._encode_image(shown))  # type: ignore[misc]

    @torch.inference_mode()
    def _encode_image(self, image: ImageInput) -> None:
        assert image.pixels is not None
        image.features = self._model.image_features(torch.from_numpy(image.pixels))
        image.pixels = None

    def _forward(self, rows: list[Row]) -> list[RowResult]:
        if not rows:
            return []
        try:
            logits = self._retry_after_oom(lambda: self._logits(rows))
        except Exception as error:
            if len(rows) == 1 and not rows[0][0].drafts:
                return [RowResult(*rows[0], error=error)]
            logits = None  # outside the handler, whose traceback keeps tensors of the broken forward alive
        if logits is None:
            for sequence, _ in rows:  # they may take a page that nobody counted on
                sequence.drafts = []
            return [result for row in rows for result in self._forward([row])]
        return self._results(rows, logits)

    def _logits(self, rows: list[Row]) -> torch.Tensor:
        """One forward; if it breaks, all caches are as before."""
        parts = [self._input(*row) for row in rows]
        self._cache.make_room(sum(part.cache.missing_pages(len(part.tokens)) for part in parts))
        with ExitStack() as undo:
            for sequence, _ in rows:
                undo.callback(_entry(sequence).rollback)
            logits = self._model(parts)
            undo.pop_all()
        return logits

    def _input(self, sequence: Sequence, count: int) -> DecoderInput:
        """The next `count` tokens of a sequence, with the features of the images among them."""
        part = DecoderInput(_entry(sequence).cache, sequence.next_tokens(count), wanted=1 + len(sequence.drafts))
        for image, rows, first in sequence.image_rows(count, self._image_token):
            features = image.features[first : first + len(rows)]
            part.features.append((torch.tensor(rows, device=features.device), features))
        return part

    def _results(self, rows: list[Row], logits: torch.Tensor) -> list[RowResult]:
        """Count the tokens as read and draw the next ones, all draws of a step at once."""
        drawings, first = [], 0
        for sequence, count in rows:
            drawings.append(self._advance(sequence, count, first))
            first += 1 + len(sequence.drafts)
        draws = [draw for each in drawings for draw in each.draws]
        drawn = iter(_drawn(logits, [row for each in drawings for row in each.rows], draws))
        return [each.with_drawn([*islice(drawn, len(each.draws))]) for each in drawings]

    def _advance(self, sequence: Sequence, count: int, first: int) -> Drawing:
        """Count the tokens as read, and say what is to be drawn from the logits of row `first` and those of the drafts.

        Whatever fails here is the fault of this sequence alone.
        """
        result = RowResult(sequence, count)
        try:
            entry = _entry(sequence)
            before, common = len(entry.keys), sequence.prompt.common
            entry.keys += sequence.keys[before : before + count]
            if before < common <= before + count:
                self._cache.share(entry, common)
            return Drawing(result, [], []) if sequence.unread else self._drawing(result, first)
        except Exception as error:
            return Drawing(replace(result, error=error), [], [])

    @staticmethod
    def _drawing(result: RowResult, first: int) -> Drawing:
        """The token that control forces comes first, without a draw; drafts that it contradicts count for nothing."""
        sequence = result.sequence
        forced, drafts = sequence.forced_token(), sequence.drafts
        banned = sequence.banned_tokens()
        places = range(1 + len(drafts))
        if forced is not None:
            places = places[1:] if drafts[:1] == [forced] else range(0)
        draws = [sequence.sampling.draw(banned, drafts[:place]) for place in places]
        tokens = () if forced is None else (forced,)
        return Drawing(replace(result, tokens=tokens, banned=banned), [first + place for place in places], draws)

    def keep(self, sequence: Sequence, drafts: int) -> None:
        """Count the first `drafts` of a step's drafts as read, and forget the others."""
        entry = _entry(sequence)
        before = len(entry.keys)
        entry.keys += sequence.keys[before : before + drafts]
        entry.rollback()

    def _retry_after_oom(self, action: Callable[[], T]) -> T:
        """The result of `action`; if the device has no room for it, idle cache entries go, and it is tried once more."""
        try:
            return action()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, whose traceback would keep the tensors of the broken attempt alive.
        self._cache.shrink(0)
        empty_device_cache()
        return action()


def _drawn(logits: torch.Tensor, rows: list[int], draws: list[Draw]) -> list[int | Exception]:
    """The token of each draw, from its row of the logits, or why there is none; if all together break, each is drawn alone."""
    if not draws:
        return []
    try:
        return [*sample_batch(logits, draws, rows)]
    except Exception as error:
        if len(draws) == 1:
            return [error]
    return [one for row, draw in zip(rows, draws, strict=True) for one in _drawn(logits, [row], [draw])]


def _entry(sequence: Sequence) -> CacheEntry:
    assert sequence.entry is not None, "a sequence has a cache entry from its admission on"
    return sequence.entry
