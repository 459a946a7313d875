"""Takes out of an answer what a server has left of the reasoning at its beginning, where a field of its own has brought that.

There are two such things: one closing mark that stands first, and the whole reasoning once more between marks, as llama.cpp's
`deepseek-legacy` writes it. Every other mark is text.
"""

from collections.abc import Callable, Sequence

from magistral_ui.chat.reasoning import LINE_BREAKS, part_of


class RepeatedReasoning:
    """Holds the beginning of an answer back until it is known what of it is one; `feed` costs the length of what is new."""

    def __init__(self, marks: Sequence[tuple[str, str]], thought: Callable[[int, int], str]) -> None:
        """`thought` gives a part of the reasoning so far: from a place on, so many characters at most."""
        self._marks, self._thought = marks, thought
        self._lead: list[str] = []
        self._end = ""  # the mark that would end the reasoning, while it is said once more
        self._rest = ""  # what of it has not been compared
        self._same = 0  # characters of the reasoning that came again

    def feed(self, text: str) -> str | None:
        """The beginning of the answer; None while it is not known, and then nothing is lost."""
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
        """What was held back and is an answer after all, now that nothing follows."""
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
