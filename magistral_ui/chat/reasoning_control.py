"""Forces tokens to end reasoning: the reasoning budget, Answer now and the loop guard share one queue; it samples nothing."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from magistral_ui.chat.reasoning import Channel

MIN_ANSWER_TOKENS = 1_024
"""Tokens reserved for the answer if there is a reasoning budget, but never more than half of `max_tokens`."""


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """Token ids of the marks that open and close reasoning (several ids if marks are text), and of the end of the turn."""

    opening: tuple[int, ...]
    closing: tuple[int, ...]
    end_of_turn: int


def reasoning_limit(max_tokens: int, budget: int | None) -> int | None:
    """How many tokens of reasoning are allowed, so that the answer always has some left; None: no limit but `max_tokens`.

    0 means no reasoning.
    """
    if budget is None or budget == 0:
        return budget
    return max(1, min(budget, max_tokens - min(MIN_ANSWER_TOKENS, max_tokens // 2)))


class ReasoningControl:
    """Decides for one reply, token by token. Call `forced` before sampling and `took` after each token.

    Once it has closed the reasoning, the marks are banned from the reply, and the end of the turn until there is an answer.
    With a limit of 0, they are banned from the start: a reasoning model answers some messages without reasoning anyway, while
    empty reasoning confuses it. Marks that are text cannot be banned, so there empty reasoning is forced.
    """

    def __init__(self, tokens: ControlTokens, limit: int | None = None, guard: "LoopGuard | None" = None) -> None:
        """`limit` is the number of reasoning tokens allowed (None: any); without a `guard`, repetition is not detected."""
        self._tokens, self._limit, self._guard = tokens, limit, guard
        self._queue: deque[int] = deque()
        self._reasoned = 0
        self._closed = False
        self._forced = False
        self._answered = False
        self.notice: str | None = None
        """The notice that says why the reasoning was closed: `answered_now`, `budget_spent` or `loop_broken`."""

    def forced(self, channel: Channel, answer_now: bool) -> int | None:
        """The token that must come next, given that the reply is in `channel`, or None to let the model choose."""
        if not self._queue and not self._closed:
            self._close(channel, answer_now)
        self._forced = bool(self._queue)
        return self._queue.popleft() if self._queue else None

    def banned(self) -> tuple[int, ...]:
        if not self._closed:
            return ()
        marks = (*self._tokens.opening, *self._tokens.closing) if self._bans_marks else ()
        return marks if self._answered else (*marks, self._tokens.end_of_turn)

    def took(self, token: int, channel: Channel) -> None:
        if channel == "reasoning":
            self._reasoned += 1
            if self._guard is not None:
                self._guard.feed(token)
        elif self._closed and not self._forced:  # the closing mark itself is no answer
            self._answered = True

    @property
    def _bans_marks(self) -> bool:
        return len(self._tokens.closing) == 1

    def _close(self, channel: Channel, answer_now: bool) -> None:
        if self._limit == 0 and channel != "reasoning" and self._bans_marks:
            self._closed, self._answered = True, channel == "answer"
            return
        if channel == "answer":
            return
        if self._limit == 0:
            self.notice = None if channel == "before" else "budget_spent"
        elif answer_now:
            self.notice = "answered_now"
        elif self._limit is not None and channel == "reasoning" and self._reasoned >= self._limit:
            self.notice = "budget_spent"
        elif self._guard is not None and self._guard.looping:
            self.notice = "loop_broken"
        else:
            return
        if channel == "before":
            self._queue.extend(self._tokens.opening)
        self._queue.extend(self._tokens.closing)
        self._closed = True


LOOPS = ((512, 4), (1_536, 3))
"""(tokens, rounds): the last `tokens` are a loop if they are one piece repeated `rounds` times.

Measured on published answers of Magistral Small 1.0, Medium 1.1 and Small 4 to one riddle (4,182, 4,524 and 759 tokens), of
which two are known for repeating themselves and still end: their longest exact repetition was 30 tokens.
"""


class LoopGuard:
    """Detects endless repetition: only long, exact repetition counts, since reasoning may repeat itself and still end."""

    def __init__(self, loops: Sequence[tuple[int, int]] = LOOPS, every: int = 64) -> None:
        """Looks at the last tokens every `every` tokens: that costs about sum(window) ÷ every steps per token."""
        self._loops, self._every = loops, every
        self._recent: deque[int] = deque(maxlen=max(window for window, _ in loops))
        self._seen = 0
        self.looping = False

    def feed(self, token: int) -> None:
        self._recent.append(token)
        self._seen += 1
        if self._seen % self._every == 0:
            recent = tuple(self._recent)
            self.looping = any(
                len(recent) >= window and period(recent[-window:]) * rounds <= window for window, rounds in self._loops
            )


def period(tokens: Sequence[int]) -> int:
    """The smallest p with tokens[i] == tokens[i + p] throughout; len(tokens) if nothing repeats. O(len)."""
    border = [0] * len(tokens)  # Knuth-Morris-Pratt: the longest proper prefix that is also a suffix
    for i in range(1, len(tokens)):
        k = border[i - 1]
        while k and tokens[i] != tokens[k]:
            k = border[k - 1]
        border[i] = k + 1 if tokens[i] == tokens[k] else 0
    return len(tokens) - border[-1] if tokens else 0
