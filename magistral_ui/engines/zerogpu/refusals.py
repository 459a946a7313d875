"""Reads what the spaces package raises, by its title and words, as the key of our own sentence; it knows no other errors.

The titles and words are those of spaces 0.51.3, zero/client.py and zero/wrappers.py; they come as gradio.Error.
"""

import re
from dataclasses import dataclass, field

from magistral_ui.errors import Value

LEFT = re.compile(r"\((\d+)s requested vs\. (-?\d+)s left\)")
WAIT = re.compile(r"Try again in ([^.]+)\.")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no GPU, or no longer: the key of the sentence and what fills it."""

    key: str
    values: dict[str, Value] = field(default_factory=dict)
    left: int | None = None
    """Seconds that would still be given."""
    too_long: bool = False
    """Whether fewer seconds may be given."""
    unknown: bool = False
    """Whether it is none of the package's own."""
    aborted: bool = False
    """Whether the process was ended from outside, most often for want of time."""


def refusal_of(error: BaseException) -> Refusal:
    """What `error` means for the visitor."""
    title, message = str(getattr(error, "title", "")), str(getattr(error, "message", error))
    if title == "ZeroGPU quota exceeded":
        return _over_quota(message)
    if title == "ZeroGPU pending credits exceeded":
        return Refusal("gpu_quota_gone")
    if title == "ZeroGPU illegal duration":
        return Refusal("gpu_busy", too_long=True)
    if title in ("ZeroGPU queue timeout", "ZeroGPU client error"):  # no card in time, or a token that is over
        return Refusal("gpu_busy")
    if title == "ZeroGPU worker error":
        aborted = message == "GPU task aborted"
        return Refusal("gpu_taken_away" if aborted else "generation_failed", aborted=aborted, unknown=not aborted)
    return Refusal("gpu_busy", unknown=True)


def _over_quota(message: str) -> Refusal:
    if "No GPU was available" in message:
        return Refusal("gpu_busy")
    if "GPU limit" in message:
        return Refusal("gpu_quota_gone")
    left, wait = LEFT.search(message), WAIT.search(message)
    if wait is None:
        return Refusal("gpu_quota_gone")
    return Refusal("gpu_quota_spent", {"wait": wait[1]}, left=int(left[2]) if left else None)
