"""Draws the next tokens of a whole step from its logits; it does not know what the tokens mean or whose they are.

The order is transformers': repetition penalty, temperature, top_k, top_p, min_p. The random numbers are made on the host and
depend on the seed and the position alone, so a seed gives the same draws on every device, alone and in a batch, in one go and
resumed. What a step needs goes to the device in one copy, and its tokens come back in one: waiting for the device costs more
than drawing does.
"""

import math
import random
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain

import torch

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.local.candidates import Settings, Way, candidates, drawn, likeliest
from magistral_ui.engines.local.device_upload import Upload
from magistral_ui.engines.local.sampling_state import Draw

FIRST_CANDIDATES = 1_024
"""Candidates looked at first: a top-k of the vocabulary is many times cheaper than sorting it."""
SAMPLED_ON_HOST = ("mps",)
"""Devices whose tokens are drawn on the processor: Apple's GPU lacks many of the operations, and shares the processor's
memory."""

MIN_TEMPERATURE = 1e-4
"""Below it, the likeliest token is all but certain, and dividing by the temperature would overflow."""

FLAT, BROKEN = -1, -2
"""What comes back instead of a token: the first candidates did not suffice; the row is no distribution. A token below BROKEN
is one from a row that was sorted at once and had to be: BROKEN - 1 - token."""

NO_DISTRIBUTION = "logits that hold infinity, or what is no number, are no distribution"

WHOLE = (Way.ALL, Way.SORTED)
PORTION, HOST_PORTION = 2**21, 2**17
"""Scores of one kind that are computed at once: sixteen rows of Magistral's vocabulary on a GPU, two on the host, where more
would not stay in the processor's caches."""

Kind = tuple[Way, int, bool]
"""Rows of one kind are computed together: their way, how many candidates, and whether they are sorted at once if need be."""


def sample_batch(logits: torch.Tensor, draws: Sequence[Draw], rows: Sequence[int] | None = None) -> list[int]:
    """The token of each draw, from `logits` of shape (rows, vocabulary) in any float type.

    `rows` says from which row each draw is; without it, they are as many, in the same order. A token depends on its own row
    and draw alone. ValueError if a row is no distribution, because it holds infinity or what is no number.
    """
    if not draws:
        return []
    if logits.device.type in SAMPLED_ON_HOST:
        logits = logits.cpu()
    rows = range(len(draws)) if rows is None else rows
    if len(draws) == 1 and logits.device.type == "cpu":
        return [_on_host(logits[rows[0] : rows[0] + 1], draws[0])]
    waits = logits.device.type != "cpu"  # on the host, looking twice costs no wait
    kinds = [kind_of(draw.params, logits.shape[1], waits and draw.flatness.flat) for draw in draws]
    codes = _codes(logits, rows, draws, kinds)
    again = [n for n, code in enumerate(codes) if code == FLAT]
    if again:
        kinds = [(Way.SORTED, 0, False)] * len(again)
        second = _codes(logits, [rows[n] for n in again], [draws[n] for n in again], kinds)
        for n, code in zip(again, second, strict=True):
            codes[n] = code if code == BROKEN else BROKEN - 1 - code
    if BROKEN in codes:
        raise ValueError(NO_DISTRIBUTION)
    for draw, code in zip(draws, codes, strict=True):
        draw.flatness.flat = code < BROKEN
    return [code if code >= 0 else BROKEN - 1 - code for code in codes]


def kind_of(params: SamplingParams, vocabulary: int, flat: bool = False) -> Kind:
    """How rows with these parameters are computed; `flat` says that the first candidates are not expected to suffice."""
    if params.temperature < MIN_TEMPERATURE:
        return Way.LIKELIEST, 0, False
    if params.top_k:
        return Way.TOP, min(vocabulary, params.top_k), False
    if params.top_p == 1:
        return Way.ALL, 0, False
    return Way.HEAD, min(vocabulary, FIRST_CANDIDATES), flat


def settings_of(draws: Sequence[Draw]) -> Sequence[list[float]]:
    """The fields of `Settings`, a number for each draw."""
    temperatures = [draw.params.temperature for draw in draws]
    top_p = [draw.params.top_p if draw.params.top_p < 1 else math.inf for draw in draws]
    uniform = [_uniform(draw.params.seed or 0, draw.position) for draw in draws]
    min_p = [draw.params.min_p for draw in draws]
    return [temperatures, top_p, uniform, *([min_p] if any(min_p) else [])]


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone: a resumed reply draws what it would have drawn."""
    return random.Random(seed << 32 | position).random()


def _on_host(logits: torch.Tensor, draw: Draw) -> int:
    """The token from logits (1, vocabulary) on a processor, where numbers need no copies and looking twice costs no wait."""
    scores, params = logits.float(), draw.params
    if params.repetition_penalty != 1.0 and draw.seen:
        ids = torch.frombuffer(array("q", draw.seen), dtype=torch.int64)
        scores = scores.index_copy(1, ids, penalised(scores[:, ids], params.repetition_penalty))
    if draw.banned:
        scores = scores.index_fill(1, torch.tensor(draw.banned), -torch.inf)
    way, count, _ = kind_of(params, scores.shape[1])
    if way is Way.LIKELIEST:
        return int(likeliest(scores))
    settings = Settings(*(number for (number,) in settings_of([draw])))
    found = candidates(way, count, scores, settings)
    if found.flat is not None and found.flat:
        found = candidates(Way.SORTED, 0, scores, settings)
    code = int(drawn(found, settings.uniform, BROKEN))
    if code == BROKEN:
        raise ValueError(NO_DISTRIBUTION)
    return code


def _codes(logits: torch.Tensor, rows: Sequence[int], draws: Sequence[Draw], kinds: Sequence[Kind]) -> list[int]:
    """A token for each draw, or what stands for one; the only wait for the device."""
    upload, all_rows = Upload(), list(rows) == list(range(logits.shape[0]))
    selected = upload.ints(() if all_rows else rows)
    edits = Edits(draws, logits.shape[1], upload)
    groups = [Group(kind, members, draws, upload) for kind, members in _grouped(kinds, logits)]
    there = upload.send(logits.device)
    scores = edits.applied(logits if all_rows else logits.index_select(0, there[selected]), there)
    found = [group.codes(scores, there) for group in groups]
    codes = [0] * len(draws)
    members = chain(*(group.members for group in groups))
    for n, (code,) in zip(members, (torch.cat(found) if len(found) > 1 else found[0]).tolist(), strict=True):
        codes[n] = code
    return codes


def _grouped(kinds: Sequence[Kind], logits: torch.Tensor) -> Iterator[tuple[Kind, list[int]]]:
    """Rows of one kind, in portions that bound the memory they take at once."""
    together: dict[Kind, list[int]] = {}
    for n, kind in enumerate(kinds):
        together.setdefault(kind, []).append(n)
    limit = max(1, (HOST_PORTION if logits.device.type == "cpu" else PORTION) // logits.shape[1])
    for kind, members in together.items():
        portion = limit if kind[0] in WHOLE or kind[2] else len(members)
        yield from ((kind, members[at : at + portion]) for at in range(0, len(members), portion))


class Group:
    """Rows that are computed together."""

    def __init__(self, kind: Kind, members: list[int], draws: Sequence[Draw], upload: Upload) -> None:
        """`members` are the places of its draws among `draws`."""
        self._way, self._count, self._sorted_at_once = kind
        self.members = members
        self._every = len(members) == len(draws)
        self._rows = upload.ints(() if self._every else members)
        fields = () if self._way is Way.LIKELIEST else settings_of([draws[n] for n in members])
        self._numbers = upload.floats(chain(*fields))

    def codes(self, scores: torch.Tensor, there: list[torch.Tensor]) -> torch.Tensor:
        """(members, 1), from the scores of all draws; `there` is what the upload returned."""
        scores = scores if self._every else scores.index_select(0, there[self._rows])
        if self._way is Way.LIKELIEST:
            return likeliest(scores)
        settings = Settings.of(there[self._numbers], len(self.members))
        found = candidates(self._way, self._count, scores, settings)
        codes = drawn(found, settings.uniform, BROKEN)
        if found.flat is None:
            return codes
        if not self._sorted_at_once:
            return codes.masked_fill(found.flat, FLAT)
        of_all = drawn(candidates(Way.SORTED, 0, scores, settings), settings.uniform, BROKEN)
        return torch.where(found.flat, BROKEN - 1 - of_all, codes)


def penalised(scores: torch.Tensor, penalty: torch.Tensor | float) -> torch.Tensor:
    """Scores of tokens that have been seen."""
    return torch.where(scores < 0, scores * penalty, scores / penalty)


class Edits:
    """What draws change in the scores before anything is drawn: repetition penalties, and tokens that are banned."""

    def __init__(self, draws: Sequence[Draw], vocabulary: int, upload: Upload) -> None:
        """IndexError if a banned token is not in the vocabulary."""
        banned = [(n, token) for n, draw in enumerate(draws) for token in draw.banned]
        if any(not 0 <= token < vocabulary for _, token in banned):
            raise IndexError("a banned token is not in the vocabulary")
        rows = [n for n, draw in enumerate(draws) if draw.params.repetition_penalty != 1.0 and draw.seen]
        self._edited = bool(banned or rows)
        self._bans = upload.ints([n * vocabulary + token for n, token in banned]) if banned else None
        self._counts = [len(draws[n].seen) for n in rows]
        if rows:
            self._repeats, self._rows = upload.ints(self._counts), upload.ints(rows)
            self._seen = upload.ints(*(draws[n].seen for n in rows))
            self._penalties = upload.floats([draws[n].params.repetition_penalty for n in rows])

    def applied(self, logits: torch.Tensor, there: list[torch.Tensor]) -> torch.Tensor:
        """The scores in float32; `there` is what the upload returned."""
        scores = logits.to(torch.float32, copy=self._edited)
        if self._counts:
            which = torch.arange(len(self._counts), device=scores.device)
            which = which.repeat_interleave(there[self._repeats], output_size=sum(self._counts))
            place = there[self._rows][which], there[self._seen]
            penalty = there[self._penalties].float()[which]
            scores.index_put_(place, penalised(scores[place], penalty))
        if self._bans is not None:
            scores.view(-1).index_fill_(0, there[self._bans], -torch.inf)
        return scores
