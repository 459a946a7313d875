"""Removes leftovers of the reasoning from the start of an answer, where the reasoning came in a field of its own.

There are two kinds: a single leading closing mark, and the whole reasoning once more between marks, as in llama.cpp's
`deepseek-legacy` format. Every other mark is text.
"""

from collections.abc import Callable, Sequence

from magistral_ui.chat.reasoning import LINE_BREAKS, part_of


class RepeatedReasoning:
    """Holds back the start of an answer until the leftovers are known; `feed` costs the length of what is new."""

    def __init__(self, marks: Sequence[tuple[str, str]], thought: Callable[[int, int], str]) -> None:
        """`thought(start, count)` returns at most `count` characters of the reasoning so far."""
        self._marks, self._thought = marks, thought
        self._lead: list[str] = []
        self._end = ""  # the mark that would end the reasoning, while it is said once more
        self._rest = ""  # what of it has not been compared
        self._same = 0  # characters of the reasoning that came again

    def feed(self, text: str) -> str | None:
        """The start of the answer; None while it is unknown, in which case nothing is lost."""
        self._lead.append(text)
        if self._end:
            return self._compared(text)
        start = "".join(self._lead).lstrip()
        for begin, end in self._marks:
            if start.startswith(end):
                return start[len(end) :].lstrip() or None
            if start.startswith(begin):
                self._end = end
                return self._compared(start[len(begin) :])
        if not start or any(mark.startswith(start) for pair in self._marks for mark in pair):
            return None
        return "".join(self._lead)

    def finish(self) -> str:
        """What was held back and is answer after all, now that nothing follows."""
        lead = "".join(self._lead)
        if self._same or any(lead.strip() == end for _, end in self._marks):
            return ""
        return lead

    def _compared(self, text: str) -> str | None:
        rest = self._rest + text
        if not self._same:
            rest = rest.lstrip(LINE_BREAKS)
        again, mark, after = rest.partition(self._end)
        if not mark:
            again = again[: len(again) - part_of(again, [self._end])]
        again = again.rstrip(LINE_BREAKS)
        if self._thought(self._same, len(again)) != again:
            return "".join(self._lead)
        self._same += len(again)
        if not mark:
            self._rest = rest[len(again) :]
            return None
        if not self._same or self._thought(self._same, 1):
            return "".join(self._lead)
        self._lead, self._end = [], ""
        return after.lstrip(LINE_BREAKS) or None
