"""Reads the errors of the spaces package by their titles and words, and gives the key of our own sentence for each.

The titles and words are those of spaces 0.51.3, zero/client.py and zero/wrappers.py; they are raised as gradio.Error.
"""

import re
from dataclasses import dataclass

from magistral_ui.errors import Message

LEFT = re.compile(r"\((\d+)s requested vs\. (-?\d+)s left\)")
MAX_QUOTA_RATE = 4.0
"""What a second on a card costs of a quota at most: 2 seconds on a whole card, 1.5 on some others, with room for more."""
WAIT = re.compile(r"Try again in ([^.]+)\.")


@dataclass(frozen=True, slots=True)
class GpuRefusal(Message):
    """Why there is no GPU, or no longer."""

    requested: int | None = None
    """Seconds asked for, as the quota counts them: on some cards each costs more than one."""
    left: int | None = None
    """Seconds left of the quota, counted likewise."""
    too_long: bool = False
    """Whether fewer seconds may be given."""
    unknown: bool = False
    """Whether the error is not one of the package's own."""
    aborted: bool = False
    """Whether the process was killed, mostly because its time was over."""

    def granted(self, asked: int) -> int:
        """Seconds worth asking for after `asked` were refused; 0 or less if none are."""
        if self.too_long:
            return asked // 2
        if self.left is None or not self.requested:
            return 0
        costs = self.requested / asked
        return int((self.left - 1) / (costs if 1.0 <= costs <= MAX_QUOTA_RATE else 1.0))


def gpu_refusal(error: BaseException) -> GpuRefusal:
    """What `error` means for the visitor."""
    title, message = str(getattr(error, "title", "")), str(getattr(error, "message", error))
    if title == "ZeroGPU quota exceeded":
        return _over_quota(message)
    if title == "ZeroGPU pending credits exceeded":
        return GpuRefusal("gpu_quota_gone")
    if title == "ZeroGPU illegal duration":
        return GpuRefusal("gpu_busy", too_long=True)
    if title in ("ZeroGPU queue timeout", "ZeroGPU client error"):  # no card in time, or an expired token
        return GpuRefusal("gpu_busy")
    if title == "ZeroGPU worker error":
        aborted = message == "GPU task aborted"
        return GpuRefusal("gpu_taken_away" if aborted else "generation_failed", aborted=aborted, unknown=not aborted)
    return GpuRefusal("gpu_busy", unknown=True)


def _over_quota(message: str) -> GpuRefusal:
    if "No GPU was available" in message:
        return GpuRefusal("gpu_busy")
    if "GPU limit" in message:
        return GpuRefusal("gpu_quota_gone")
    left, wait = LEFT.search(message), WAIT.search(message)
    if wait is None:
        return GpuRefusal("gpu_quota_gone")
    requested, remaining = (int(left[1]), int(left[2])) if left else (None, None)
    return GpuRefusal("gpu_quota_spent", {"wait": wait[1]}, requested, remaining)
