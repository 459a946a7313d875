"""Formats the memory plans of the family for a terminal: on common hardware, and on one machine; pure."""

from collections.abc import Iterator

from magistral_ui.i18n.texts import sentence, text
from magistral_ui.models.cards import FAMILY
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_plan import estimated_weights
from magistral_ui.models.ladder import READABLE_PACE, Candidate, Pace, best_candidate, candidates, no_pace
from magistral_ui.models.memory import GIB, TYPICAL_CONTEXT, MemoryPlan

CARD_GIGABYTES = (8, 12, 16, 24, 32, 48, 80)
MAC_GIGABYTES = (16, 24, 32, 48, 64, 96, 128)
CPU_GIGABYTES = (16, 32, 64)
LARGE_MAC = 36
"""Gigabytes from which on macOS lets the GPU use three quarters of the memory; two thirds of less."""
CPU_OTHERS = 3
"""Gigabytes that other programs use on a computer, or an eighth of its memory if that is more."""
DEVICE_WIDTH, MODEL_WIDTH = 13, 21
COLUMNS = ("model", "precision", "weights", "working", "kv", "context", "visitors", "pace")
WIDTHS = (20, 12, 9, 9, 10, 10, 10, 14)
BEST, BEST_IF_FAST = "*", "+"


def ladder_lines(*, torch: bool = True, gguf: bool = True) -> list[str]:
    """The table of common hardware, otherwise unused: each model's precision and longest context, and the best choice.

    `torch` and `gguf` say whether the libraries are installed that run models in safetensors, and as GGUF files.
    """
    cards = [(text("plan_card", size=size), DeviceBudget("cuda", size * GIB, size * GIB)) for size in CARD_GIGABYTES]
    macs = [(text("plan_mac", size=size), _mac(size)) for size in MAC_GIGABYTES]
    computers = [(text("plan_cpu", size=size), _computer(size)) for size in CPU_GIGABYTES]
    names = [card.name for card in reversed(FAMILY)]
    heading = _line([text("plan_device"), *names], (DEVICE_WIDTH, *(MODEL_WIDTH for _ in names)))
    rows = [_ladder_row(*each, torch=torch, gguf=gguf) for each in (*cards, *macs, *computers)]
    legend = text("plan_ladder_legend", pace=f"{READABLE_PACE:g}").splitlines()
    legend += text("plan_gguf_legend").splitlines() if gguf else []
    return [text("plan_heading"), "", heading, *rows, "", *legend, ""]


def machine_lines(
    name: str,
    place: DeviceBudget,
    precisions: tuple[str, ...] | None = None,
    good: int | None = None,
    pace: Pace = no_pace,
    gguf: DeviceBudget | None = None,
    known: Pace = no_pace,
) -> Iterator[str]:
    """Each model in each precision on a device in its current state, and which is best; made as the paces become known.

    `precisions` are those that the device runs well; `good` is the context for which a more exact one is given up. `gguf` is
    where llama.cpp would run a model; if it is the best there, `pace` is asked only for what may be the best, and of the rest
    what is `known` is told.
    """
    free, total = (sum(sizes) for sizes in zip(*((each.free, each.total) for each in place.all), strict=True))
    yield text("plan_machine", name=name, free=_gigabytes(free), total=_gigabytes(total))
    yield ""
    yield _line([text(f"plan_{column}") for column in COLUMNS], WIDTHS)
    found: list[Candidate] = []
    for card in reversed(FAMILY):
        (candidate,) = candidates(place, precisions, good, pace, (card,), gguf)
        found.insert(0, candidate)
        yield from _machine_rows(candidate, pace, known)
    yield ""
    yield from text("plan_legend", tokens=f"{TYPICAL_CONTEXT:,}").splitlines()
    by_llama = [each for each in found if each.plan.kv_type]
    if gguf is not None and by_llama:
        untimed = gguf.type in ("cpu", "mps") and any(
            each.plans and each.tokens_per_second is None for each in by_llama
        )
        yield from text("plan_not_timed" if untimed else "plan_timed_once").splitlines()
    yield ""
    best = best_candidate(found)
    if best is None:
        yield text("plan_only_demo")
        return
    size = f"{_download_bytes(best) / 1e9:.1f}"
    key = "plan_best_gguf" if best.plan.kv_type else "plan_best"
    yield text(key, model=best.card.name, precision=best.plan.precision)
    yield from text("plan_auto", size=size).splitlines()
    yield from _details(best)


def file_lines(name: str, planned: MemoryPlan, layers: int) -> Iterator[str]:
    """The plan of one GGUF file: `name` is the model's, `layers` how many it has."""
    yield _line([text(f"plan_{column}") for column in COLUMNS[:-1]], WIDTHS)
    yield _line([name[: WIDTHS[0] - 1], planned.precision, *_figures(planned)], WIDTHS)
    yield ""
    yield text("plan_kv_type", type=planned.kv_type, slots=planned.slots)
    if planned.gpu_layers:
        yield text("plan_gpu_layers", layers=planned.gpu_layers - 1, all=layers, ram=_gigabytes(planned.in_ram))
    if planned.image_side:
        yield text("plan_image_side", side=planned.image_side)


def _download_bytes(best: Candidate) -> int:
    if not best.plan.kv_type or best.card.shape is None:
        return best.card.download_bytes
    weights = estimated_weights(best.card.shape, best.plan.precision)
    return sum(weights.layers) + weights.embedding + weights.mmproj + (0 if weights.tied else weights.head)


def _details(best: Candidate) -> Iterator[str]:
    """What is particular about the plan of the best model."""
    if best.plan.ram_layers:
        on_gpu = sum(share.layers for share in best.plan.shares)
        all = on_gpu + best.plan.ram_layers
        yield text("plan_gpu_layers", layers=on_gpu, all=all, ram=_gigabytes(best.plan.in_ram))
    if best.card.shape and best.plan.image_side < best.card.shape.image_side:
        yield text("plan_images", side=best.plan.image_side)
    if len(best.plan.shares) > 1:
        layers = " + ".join(str(share.layers) for share in best.plan.shares)
        yield text("plan_spread", precision=best.plan.precision, count=len(best.plan.shares), layers=layers)


def _mac(gigabytes: int) -> DeviceBudget:
    """What macOS lets the GPU use of so much memory."""
    size = gigabytes * GIB * 3 // 4 if gigabytes > LARGE_MAC else gigabytes * GIB * 2 // 3
    return DeviceBudget("mps", size, size)


def _computer(gigabytes: int) -> DeviceBudget:
    return DeviceBudget("cpu", gigabytes * GIB - max(CPU_OTHERS * GIB, gigabytes * GIB // 8), gigabytes * GIB)


def _ladder_row(name: str, place: DeviceBudget, torch: bool, gguf: bool) -> str:
    found = candidates(place, None if torch else (), gguf=place if gguf else None)
    best, mark = best_candidate(found), BEST if place.type == "cuda" else BEST_IF_FAST
    cells = [name]
    for each in reversed(found):
        fact = f"{each.plan.precision:8} {each.plan.context:>7,}" if each.plans else "–"
        cells.append(f"{fact} {mark}" if each is best else fact)
    return _line(cells, (DEVICE_WIDTH, *(MODEL_WIDTH for _ in found)))


def _machine_rows(candidate: Candidate, pace: Pace, known: Pace) -> Iterator[str]:
    name, shape = candidate.card.name, candidate.card.shape
    if not candidate.plans and candidate.refusal:
        cells = [name, candidate.plan.precision, _gigabytes(candidate.plan.weights), sentence(candidate.refusal)]
        yield _line(cells, WIDTHS)
        return
    for planned in candidate.plans:
        assert shape is not None
        chosen = planned.precision == candidate.plan.precision and candidate.refusal is None
        precision = f"{planned.precision} {BEST}" if chosen else planned.precision
        if planned.precision == candidate.plan.precision:
            told = candidate.tokens_per_second, candidate.measured
        else:
            told = (known if candidate.plan.kv_type or planned.kv_type else pace)(shape, planned.precision)
        yield _line([name, precision, *_figures(planned), _told(*told)], WIDTHS)
        name = ""


def _figures(planned: MemoryPlan) -> list[str]:
    sizes = map(_gigabytes, (planned.weights, planned.working + planned.margin, planned.kv_bytes))
    return [*sizes, f"{planned.context:,}", str(planned.visitors)]


def _told(tokens: float | None, measured: bool) -> str:
    if tokens is None:
        return ""
    told = f"{tokens:.1f}" if measured else f"~{tokens:.1f}"
    return text("plan_too_slow", pace=told) if tokens < READABLE_PACE else told


def _line(cells: list[str], widths: tuple[int, ...]) -> str:
    return " ".join(cell.ljust(width - 1) for cell, width in zip(cells, widths, strict=False)).rstrip()


def _gigabytes(size: int) -> str:
    return f"{size / GIB:.1f}"
