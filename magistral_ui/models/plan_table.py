"""Formats the memory plan of Magistral Small 1.2 for a terminal: for common GPUs, and for one machine; pure."""

from magistral_ui.i18n.texts import text
from magistral_ui.models.memory import (
    GIB,
    GOOD_CONTEXT,
    PRECISIONS,
    TYPICAL_CONTEXT,
    DeviceBudget,
    MemoryPlan,
    best_plan,
    fits,
    needed_bytes,
    plan,
)
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2

CARD_GIGABYTES = (16, 24, 32, 48, 80)
COLUMNS = ("device", "precision", "weights", "working", "kv", "context", "visitors")
WIDTHS = (9, 20, 9, 9, 14, 17, 10)


def card_lines() -> list[str]:
    """The table of common GPUs, each otherwise unused."""
    lines = [text("plan_heading"), "", _heading()]
    for size in CARD_GIGABYTES:
        lines += _rows(text("plan_card", size=size), DeviceBudget("cuda", size * GIB, size * GIB))
    return [*lines, "", text("plan_legend", tokens=f"{TYPICAL_CONTEXT:,}"), ""]


def machine_lines(
    name: str, place: DeviceBudget, precisions: tuple[str, ...] | None = None, good: int = GOOD_CONTEXT
) -> list[str]:
    """The same for a device in its current state, and what to do if Magistral does not fit.

    `precisions` are those that the device runs well; `good` is the context for which a more exact one is given up.
    """
    free, total = (sum(sizes) for sizes in zip(*((each.free, each.total) for each in place.all), strict=True))
    head = text("plan_machine", name=name, free=_gigabytes(free), total=_gigabytes(total))
    lines = [head, "", _heading(), *_rows(place.type, place, precisions, good), ""]
    best = best_plan(MAGISTRAL_SMALL_1_2, place, precisions, good)
    if not fits(MAGISTRAL_SMALL_1_2, best):
        count = len(place.all)
        needed = _gigabytes(
            needed_bytes(MAGISTRAL_SMALL_1_2, best.precision, place.type, count=count, fused=place.fused)
        )
        lines.append(text("plan_needs", precision=best.precision, needed=needed))
    elif len(best.shares) > 1:
        layers = " + ".join(str(share.layers) for share in best.shares)
        lines.append(text("plan_spread", precision=best.precision, count=len(best.shares), layers=layers))
    elif place.type == "cpu":
        lines.append(text("plan_only_demo"))
    return lines


def _heading() -> str:
    return _line([text(f"plan_{name}") for name in COLUMNS])


def _rows(
    name: str, place: DeviceBudget, precisions: tuple[str, ...] | None = None, good: int = GOOD_CONTEXT
) -> list[str]:
    best = best_plan(MAGISTRAL_SMALL_1_2, place, precisions, good)
    rows: list[str] = []
    for precision in PRECISIONS:
        planned = plan(MAGISTRAL_SMALL_1_2, precision, place)
        chosen = precision == best.precision and fits(MAGISTRAL_SMALL_1_2, planned)
        rows.append(_row(name if not rows else "", planned, chosen))
    return rows


def _row(name: str, planned: MemoryPlan, chosen: bool) -> str:
    precision = f"{planned.precision} ({text('plan_chosen')})" if chosen else planned.precision
    weights = _gigabytes(planned.weights)
    if not fits(MAGISTRAL_SMALL_1_2, planned):
        return _line([name, precision, weights, text("plan_too_small")])
    working = planned.working + planned.margin
    numbers = (f"{planned.context:,}", str(planned.visitors))
    return _line([name, precision, weights, _gigabytes(working), _gigabytes(planned.kv_bytes), *numbers])


def _line(cells: list[str]) -> str:
    return " ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=False)).rstrip()


def _gigabytes(size: int) -> str:
    return f"{size / GIB:.1f}"
