"""Attention on a processor: a row's results depend, to the last bit, only on what comes before it.

They do not depend on how many rows are read with it, on whether it is prefilled or decoded, or on whose rows share the step.
Kernels round by the shapes of their matrices, so they get shapes that only the row's position decides: a number of keys that is
the same for all rows of a tile, and queries of one tile at a time, never fewer than four.
"""

from dataclasses import dataclass, field

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from magistral_ui.engines.local.attention import write
from magistral_ui.engines.local.kv_cache import KVCache, PagePool, in_one_piece
from magistral_ui.engines.weights.packing import MIN_ROWS
from magistral_ui.models.memory import PAGE_TOKENS, pages_of

TILE = 64
"""Queries in a tile. With half as many keys, a row would give other results when more rows are read with it."""
SHORT = (64, 128, 256, 512)
"""How many keys short rows get: the first that suffices. So rows of different sequences have the same shape and share a call, for
which their keys are gathered; for longer ones, a copy costs more than a call."""


def keys_for(position: int) -> int:
    """Keys that a row at `position` gets, those that it may not see among them: a multiple of TILE."""
    return next((keys for keys in SHORT if position < keys), (position // TILE + 1) * TILE)


@dataclass(slots=True)
class Tile:
    """Rows `first` to `first + count` of the forward, all of one sequence and with as many keys."""

    first: int
    count: int
    mask: torch.Tensor
    """(count, keys), 0 where a row may look and -inf elsewhere."""

    @property
    def keys(self) -> int:
        return self.mask.shape[-1]


@dataclass(slots=True)
class SequenceRows:
    """The tiles of one sequence, and where its keys are: a slice of the pool, or pages to be gathered."""

    place: slice | torch.Tensor
    tiles: list[Tile]


@dataclass(slots=True)
class GatheredRows:
    """Single rows of several sequences with as many keys: `rows` of the forward, and for each the blocks of TILE keys."""

    rows: slice | torch.Tensor
    count: int
    blocks: torch.Tensor
    """(count × keys ÷ TILE,): numbers of blocks in the pool."""
    mask: torch.Tensor
    """(count, 1, 1, keys)."""


@dataclass(slots=True)
class ExactLayout:
    """What attention takes of one forward, the same for all layers."""

    slots: torch.Tensor
    """(rows,): where each row's key and value go in the pool."""
    rows: int
    sequences: list[SequenceRows] = field(default_factory=list)
    gathered: list[GatheredRows] = field(default_factory=list)


class ExactAttention:
    """Attention over a pool on the processor."""

    def __init__(self, pool: PagePool, dtype: torch.dtype) -> None:
        self._pool, self._dtype = pool, dtype

    def layout(self, parts: list[tuple[KVCache, int]], slots: torch.Tensor) -> ExactLayout:
        """For each part (a cache, in which room is reserved, and a number of new tokens) in the order of the rows."""
        layout = ExactLayout(slots, len(slots))
        alike: dict[int, list[tuple[int, KVCache]]] = {}
        first = 0
        for cache, count in parts:
            if count == 1 and cache.length < SHORT[-1]:
                alike.setdefault(keys_for(cache.length), []).append((first, cache))
            else:
                layout.sequences.append(self._sequence(cache, first, count))
            first += count
        for keys, rows in alike.items():
            if len(rows) == 1:
                layout.sequences.append(self._sequence(rows[0][1], rows[0][0], 1))
            else:
                layout.gathered.append(self._gathered(keys, rows))
        return layout

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: ExactLayout,
        layer: int,
        scale: float,
    ) -> torch.Tensor:
        """Attention output of shape (rows, heads × head_dim); the new keys and values go into the pool.

        `queries` is (rows, heads, head_dim); `keys` and `values` are (rows, kv_heads, head_dim). Rows of no part get zeros.
        """
        pool = self._pool.layer(layer)
        write(pool, keys, values, layout.slots)
        held = tuple(each.view(-1, *each.shape[2:]) for each in pool)
        if len(layout.gathered) == 1 and not layout.sequences and layout.gathered[0].count == layout.rows:
            return _in_one_call(queries, held, layout.gathered[0], scale)
        out = queries.new_zeros(len(queries), queries.shape[1] * queries.shape[2])
        for group in layout.gathered:
            out[group.rows] = _in_one_call(queries[group.rows], held, group, scale)
        for sequence in layout.sequences:
            k, v = (_laid_out(each, sequence.place) for each in held)
            for tile in sequence.tiles:
                out[tile.first : tile.first + tile.count] = _in_tile(queries, k, v, tile, scale)
        return out

    def _sequence(self, cache: KVCache, first: int, count: int) -> SequenceRows:
        tiles, start, end = [], cache.length, cache.length + count
        while start < end:
            stop = min(end, (start // TILE + 1) * TILE)
            columns, rows = torch.arange(keys_for(start)), torch.arange(start, stop)
            tiles.append(Tile(first, stop - start, self._mask(columns > rows[:, None])))
            first, start = first + stop - start, stop
        keys = tiles[-1].keys
        pages = cache.pages[: pages_of(keys)]
        if in_one_piece(pages):
            begin = pages[0] * PAGE_TOKENS
            return SequenceRows(slice(begin, begin + keys), tiles)
        return SequenceRows(torch.tensor(pages), tiles)

    def _gathered(self, keys: int, rows: list[tuple[int, KVCache]]) -> GatheredRows:
        per_page, blocks = PAGE_TOKENS // TILE, []
        for _, cache in rows:
            blocks += [page * per_page + n for page in cache.pages for n in range(per_page)][: keys // TILE]
        lengths = torch.tensor([cache.length + 1 for _, cache in rows])
        mask = self._mask(torch.arange(keys) >= lengths[:, None])
        first = [row for row, _ in rows]
        in_order = first == list(range(first[0], first[0] + len(first)))
        where = slice(first[0], first[0] + len(first)) if in_order else torch.tensor(first)
        return GatheredRows(where, len(rows), torch.tensor(blocks), mask[:, None, None])

    def _mask(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.zeros(hidden.shape, dtype=self._dtype).masked_fill_(hidden, -torch.inf)


def _laid_out(held: torch.Tensor, place: slice | torch.Tensor) -> torch.Tensor:
    """Keys or values of one sequence in order, (1, kv_heads, tokens, head_dim), of all that the pool holds."""
    if isinstance(place, torch.Tensor):
        pages = held.view(-1, PAGE_TOKENS, *held.shape[1:])
        return pages.index_select(0, place).view(-1, *held.shape[1:]).transpose(0, 1).unsqueeze(0)
    return held[place].transpose(0, 1).unsqueeze(0)


def _in_tile(queries: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tile: Tile, scale: float) -> torch.Tensor:
    """A tile's attention output, (count, heads × head_dim)."""
    k, v = k[:, :, : tile.keys], v[:, :, : tile.keys]
    q = queries[tile.first : tile.first + tile.count].transpose(0, 1).unsqueeze(0)
    heads, shared = q.shape[1], k.shape[1]
    mask, count = tile.mask, tile.count
    if count == 1:  # heads that share keys are treated as rows, so that each key is read once for all of them
        q, count = q.reshape(1, shared, heads // shared, -1), heads // shared
    spare = -count % MIN_ROWS
    if spare:
        q = pad(q, (0, 0, 0, spare))
    if len(mask) == 1:
        mask = mask.expand(count + spare, -1)
    elif spare:
        mask = torch.cat([mask, mask[:1].expand(spare, -1)])
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != shared)
    out = out[0, :, :count]
    return out.reshape(1, -1) if tile.count == 1 else out.transpose(0, 1).reshape(count, -1)


def _in_one_call(
    queries: torch.Tensor, held: tuple[torch.Tensor, ...], group: GatheredRows, scale: float
) -> torch.Tensor:
    """The attention output of single rows, (count, heads × head_dim); heads that share keys are treated as rows."""
    shared, width = held[0].shape[1:]
    k, v = (
        each.view(-1, TILE, shared, width)
        .index_select(0, group.blocks)
        .view(group.count, -1, shared, width)
        .transpose(1, 2)
        for each in held
    )
    heads = queries.shape[1] // shared
    q = queries.view(group.count, shared, heads, width)
    spare = -heads % MIN_ROWS
    if spare:
        q = pad(q, (0, 0, 0, spare))
    mask = group.mask.expand(-1, -1, heads + spare, -1)
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out[:, :, :heads].reshape(group.count, -1)
