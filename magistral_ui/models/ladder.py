"""The ladder: which models of the family a machine runs, how well, and which is the best; it times and loads nothing.

A model runs in safetensors with torch, or as a GGUF file with llama.cpp. On NVIDIA GPUs torch comes first, and llama.cpp runs
what does not fit in nf4. Elsewhere llama.cpp comes first: on a processor it writes 2.1 to 2.4 times as fast in 4 bits (measured),
and bitsandbytes has no fast 4-bit kernels for Apple's GPU.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from magistral_ui.errors import Message
from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_plan import (
    OFFLOAD_CONTEXT,
    QUANTIZATIONS,
    estimated_weights,
    needed_gguf_bytes,
    offloaded_pace,
    plan_gguf,
)
from magistral_ui.models.memory import (
    GOOD_CONTEXT,
    MAX_FLOAT32_PARAMETERS,
    MemoryPlan,
    best_plan,
    fits,
    needed_bytes,
    plan,
)
from magistral_ui.models.shape import ModelShape

READABLE_PACE = 4.0
"""Tokens per second below which nobody wants to read along."""
LADDER_CONTEXT = OFFLOAD_CONTEXT
"""Context for which a better model is preferred: enough for most reasoning with its answer. With less, a smaller model with more
context is of more use."""
EXACT = ("Q8_0", "Q5_K_M", "Q4_K_M")
"""Quantizations to choose from, the most exact first: what all repositories of the family publish."""
COARSE = ("Q3_K_M",)
"""Those for a model that would not fit with a good context otherwise. They are offered, but while another model fits in about
4 bits, that one is the better choice: in llama.cpp's own table (quantize.cpp) Q3_K_M costs 0.66 of perplexity and Q4_K_M 0.18,
and Ministral 3 14B solves more of three of four benchmarks than Magistral Small 1.2."""
TOO_COARSE = tuple(QUANTIZATIONS)[list(QUANTIZATIONS).index("Q4_0") + 1 :]
"""All that are coarser than 4 bits."""

Pace = Callable[[ModelShape, str], tuple[float | None, bool]]
"""Tokens per second of a shape in a precision on this machine, None if not known; and whether they were measured."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of the family on one machine."""

    card: ModelCard
    plan: MemoryPlan
    """In its best precision here; if none fits, in the smallest."""
    plans: tuple[MemoryPlan, ...]
    """One for each precision that fits: those of the library that comes first here before the other's, the most exact first."""
    tokens_per_second: float | None
    """In its best precision; None: not known."""
    measured: bool
    """Whether it has run here before; otherwise the pace is estimated."""
    refusal: Message | None
    """Why it cannot run here, or not well; None: it can."""
    compromise: int = 0
    """0: none; 1: it is coarser than 4 bits; 2: some layers, or 3: all, run on the processor although there is a GPU."""


def no_pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:  # noqa: ARG001
    """For a machine on which nothing is to be timed."""
    return None, False


@dataclass(frozen=True, slots=True)
class Held:
    """What is already downloaded."""

    safetensors: Callable[[ModelCard], bool]
    """Whether it can run with torch."""
    quantizations: Callable[[ModelCard], Collection[str]]
    """In which it can run with llama.cpp."""


def candidates(
    place: DeviceBudget,
    precisions: tuple[str, ...] | None = None,
    good: int | None = None,
    pace: Pace = no_pace,
    family: Sequence[ModelCard] = FAMILY,
    gguf: DeviceBudget | None = None,
    held: Held | None = None,
) -> tuple[Candidate, ...]:
    """Each model of the `family` on `place`, in the same order.

    `precisions` are those that the machine runs well with torch, the most exact first; none: torch is not installed. `good` is
    the context for which a more exact one is given up. `gguf` is where llama.cpp would run a model, which may be another
    device than torch's; None: it is not installed. `held` restricts what may run to what is here. `pace` is asked only for
    what fits.
    """
    ways = _Ways(place, precisions, good, pace, gguf, held)
    return tuple(ways.candidate(card, card.shape) for card in family if card.shape)


def best_candidate(found: Sequence[Candidate]) -> Candidate | None:
    """The first that runs well with a good context; if none has one, the one with the longest. None: none runs well.

    One that is a compromise is only chosen where there is no other.
    """
    well = [each for each in found if each.refusal is None]
    well = [each for each in well if not each.compromise] or well
    good = (each for each in well if each.plan.context >= LADDER_CONTEXT)
    return next(good, max(well, key=lambda each: each.plan.context, default=None))


Timed = tuple[MemoryPlan, float | None, bool]
"""A plan with its pace, and whether that was measured."""


@dataclass(frozen=True, slots=True)
class _Ways:
    """The ways to run a model on one machine."""

    place: DeviceBudget
    precisions: tuple[str, ...] | None
    good: int | None
    pace: Pace
    gguf: DeviceBudget | None
    held: Held | None

    def candidate(self, card: ModelCard, shape: ModelShape) -> Candidate:
        torch = self._torch_plans(shape) if self.held is None or self.held.safetensors(card) else ()
        llama = self._gguf_plans(card, shape)
        ordered = (*torch, *llama) if self.place.type == "cuda" else (*llama, *torch)
        if not ordered:
            smallest = self._smallest(card, shape)
            return Candidate(card, smallest, (), None, False, self._too_large(card, shape, smallest))
        slow: list[Timed] = []
        for each in self._by_preference(shape, torch, llama):
            if slow and not each.kv_type and slow[0][0].kv_type and self.place.type != "cuda":
                continue  # what llama.cpp writes too slowly there, torch would write more slowly
            tokens, measured = self._pace(shape, each)
            if tokens is None or tokens >= READABLE_PACE or self._is_fast(each):
                return Candidate(card, each, ordered, tokens, measured, None, self._compromise(each))
            slow.append((each, tokens, measured))
        fastest, tokens, measured = max(slow, key=lambda known: known[1] or 0)
        too_slow = Message("model_too_slow", {"pace": round(tokens or 0, 1)})
        return Candidate(card, fastest, ordered, tokens, measured, too_slow)

    def _torch_plans(self, shape: ModelShape) -> tuple[MemoryPlan, ...]:
        """What fits with torch, the most exact first."""
        choices = ("bfloat16", "nf4") if self.precisions is None else self.precisions
        plans = (plan(shape, precision, self.place, **self._good) for precision in choices)
        return tuple(each for each in plans if fits(shape, each))

    def _gguf_plans(self, card: ModelCard, shape: ModelShape) -> tuple[MemoryPlan, ...]:
        """What fits with llama.cpp, the most exact first."""
        if not self._has_gguf(card, shape):
            return ()
        if self.held is not None:
            there = self.held.quantizations(card)
            return self._fitting_gguf(card, shape, tuple(each for each in QUANTIZATIONS if each in there))
        exact = self._fitting_gguf(card, shape, EXACT)
        if any(each.context >= LADDER_CONTEXT and not each.ram_layers for each in exact):
            return exact
        return (*exact, *self._fitting_gguf(card, shape, COARSE))

    def _has_gguf(self, card: ModelCard, shape: ModelShape) -> bool:
        return self.gguf is not None and bool(card.gguf_repositories) and shape.parameters >= MAX_FLOAT32_PARAMETERS

    def _fitting_gguf(
        self, card: ModelCard, shape: ModelShape, quantizations: tuple[str, ...]
    ) -> tuple[MemoryPlan, ...]:
        plans = (self._gguf_plan(card, shape, quantization) for quantization in quantizations)
        return tuple(
            each
            for each in plans
            if fits(shape, each) and not (each.ram_layers and (self._pace(shape, each)[0] or 0) < READABLE_PACE)
        )

    def _gguf_plan(self, card: ModelCard, shape: ModelShape, quantization: str) -> MemoryPlan:
        assert self.gguf is not None
        weights = estimated_weights(shape, quantization)
        return plan_gguf(shape, weights, self.gguf, recommended=card.recommended_length)

    def _by_preference(
        self, shape: ModelShape, torch: Sequence[MemoryPlan], llama: Sequence[MemoryPlan]
    ) -> Sequence[MemoryPlan]:
        """All plans, the one to take first if its pace is good: of the library that comes first here, if nothing is given up."""
        best = best_plan(shape, self.place, self.precisions, **self._good) if torch else None
        by_torch = sorted(torch, key=lambda each: (each.precision != (best and best.precision), -each.context))
        by_llama = sorted(llama, key=lambda each: each.context < min(self.good or GOOD_CONTEXT, GOOD_CONTEXT))
        ordered = (*by_torch, *by_llama) if self.place.type == "cuda" else (*by_llama, *by_torch)
        return sorted(ordered, key=lambda each: (each.context < LADDER_CONTEXT, self._compromise(each)))

    def _compromise(self, planned: MemoryPlan) -> int:
        has_gpu = self.place.type != "cpu" or (self.gguf is not None and self.gguf.type != "cpu")
        on_gpu = planned.gpu_layers != 0 if planned.kv_type else self.place.type != "cpu"
        if has_gpu and not on_gpu:
            return 3
        return 2 if planned.ram_layers else int(planned.precision in TOO_COARSE)

    def _pace(self, shape: ModelShape, planned: MemoryPlan) -> tuple[float | None, bool]:
        if planned.ram_layers:
            return offloaded_pace(estimated_weights(shape, planned.precision), planned), False
        return self.pace(shape, planned.precision)

    def _is_fast(self, planned: MemoryPlan) -> bool:
        """Whether whatever fits is fast enough there: on GPUs, but for Apple's."""
        place = self.gguf if planned.kv_type and self.gguf else self.place
        return place.type in ("cuda", "gpu") and planned.gpu_layers != 0 and not planned.ram_layers

    def _smallest(self, card: ModelCard, shape: ModelShape) -> MemoryPlan:
        """What needs least, if nothing fits."""
        if self.precisions == () and self._has_gguf(card, shape):
            return self._gguf_plan(card, shape, (*EXACT, *COARSE)[-1])
        return best_plan(shape, self.place, self.precisions or None, **self._good)

    def _too_large(self, card: ModelCard, shape: ModelShape, smallest: MemoryPlan) -> Message:
        place, needs = self.place, []
        if self.precisions != () or not self._has_gguf(card, shape):
            count = len(place.all)
            needs = [needed_bytes(shape, smallest.precision, place.type, count=count, fused=place.fused)]
        if self.gguf is not None and self._has_gguf(card, shape) and (not needs or self.gguf.type == place.type):
            weights = estimated_weights(shape, (*EXACT, *COARSE)[-1])
            needs.append(needed_gguf_bytes(shape, weights, self.gguf.type, count=len(self.gguf.all)))
            place = self.gguf
        free = sum(each.free for each in place.all)
        return Message("model_needs_memory", {"needed": round(min(needs) / 1e9, 1), "free": round(free / 1e9, 1)})

    @property
    def _good(self) -> dict[str, int]:
        return {} if self.good is None else {"good": self.good}
