"""Converts LaTeX formulas to MathML, which browsers render without a script; what it cannot convert stays text."""

import re
import time
from contextlib import AbstractContextManager
from html import escape
from types import TracebackType
from typing import Protocol

from math_core import LatexError, LatexToMathML

from magistral_ui.bounded_process import BoundedProcess, ChildEnded
from magistral_ui.export.chemistry import chemistry

_ON_LINES = (
    "equation align gather multline flalign alignat eqnarray displaymath subequations xalignat dmath IEEEeqnarray CD split "
    "aligned alignedat gathered multlined"
)
_WITHIN_LINES = (
    "math cases dcases rcases drcases numcases matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix array darray "
    "subarray"
)
_ALIGNED = "displaymath dmath math alignedat split eqnarray IEEEeqnarray"
_NUMBERED = "equation align flalign alignat xalignat gather gathered multline multlined CD"
DISPLAYS = set(_ON_LINES.split())
"""Environments on lines of their own."""
ENVIRONMENTS = DISPLAYS | set(_WITHIN_LINES.split())
"""Those, and others that are also allowed within a line."""
MARK = re.compile(r"\\(begin|end)\{([A-Za-z]{1,20})(\*?)\}(\{[^{}]{0,200}\}|\[[^\][]{0,200}\])?")
ALIGNED = set(_ALIGNED.split())
"""Environments that become `aligned`."""
NUMBERED = set(_NUMBERED.split())
"""Environments that become `aligned` where equations cannot be numbered."""
OTHER = {
    "alignat": "align",
    "xalignat": "align",
    "flalign": "align",
    "multline": "gather",
    "multlined": "gathered",
    "numcases": "cases",
    "smallmatrix": "matrix",
}
PERCENT = re.compile("([0-9}] ?)%")
"""A percent sign after a number, where LaTeX would begin a comment."""
ARGUMENT = {"alignat", "xalignat", "alignedat", "IEEEeqnarray"}
"""Environments whose argument only describes columns."""
MAX_FORMULA_LENGTH = 5_000
"""Characters; longer ones are shown as text, as on the page."""
FILE_TIMEOUT = 30.0
"""Seconds for all formulas of one file; a thousand ordinary ones take one."""
MAX_DEPTH = 200
"""The converter recurses for each nesting level, which takes up to 1.6 kB of stack, and a full stack ends the process.
Measured: 512 kB, the least that a thread has, are full at 332 levels of the worst kind."""
PART = re.compile(r"\\[A-Za-z]+|\\.|\S", re.DOTALL)
CLOSERS = {"{": "}", "(": ")", "[": ")", "\\left": "\\right", "\\begin": "\\end"}
DEFINITION = re.compile(r"\\[a-z]*(?:def|let|command|environment|operator)(?![a-z])", re.IGNORECASE)
"""Definitions of new commands, whose depth is unknown before they are expanded."""

LINE = ('<mo stretchy="true">\u0332</mo>', '<mo class="line"></mo>')
"""Only fonts for mathematics have lines that stretch, and many computers have none, so the style sheet draws this one."""


def environments(latex: str, plain: bool) -> str:
    """`latex` with only the environments that math-core knows; `plain` keeps rows and columns, but no numbers."""
    latex = PERCENT.sub(r"\1\%", latex)
    if "\\begin" not in latex:
        return latex

    def other(match: re.Match[str]) -> str:
        word, name, star, argument = match[1], match[2], match[3], match[4] or ""
        if name == "subequations":
            return rf"\{word}{{aligned}}{argument}" if plain else argument
        if name in ARGUMENT and word == "begin":
            argument = ""
        if name in ALIGNED or (plain and name in NUMBERED):
            return rf"\{word}{{aligned}}{argument}"
        if name in ("pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "matrix") and star:
            return rf"\{word}{{{name}}}"
        known = OTHER.get(name, name)
        return rf"\{word}{{{known}{star if known in ('align', 'gather', 'equation') else ''}}}{argument}"

    return MARK.sub(other, latex)


class Formulas(Protocol):
    """Converts the formulas of answers, in order."""

    def begin_answer(self) -> None:
        """Begin another answer, in which equations are numbered from 1."""

    def html(self, latex: str, display: bool) -> str:
        """MathML for `latex`, or its text as code."""


class FormulasHere:
    """Converts formulas in this process, where one that takes forever cannot be stopped: not for untrusted text."""

    def __init__(self) -> None:
        self._converter = LatexToMathML(fancy_error=False, max_expansions=100)

    def begin_answer(self) -> None:
        self._converter.reset_global_state()

    def html(self, latex: str, display: bool) -> str:
        if len(latex) <= MAX_FORMULA_LENGTH:
            plain = chemistry(latex)
            # A display with more in it than allowed, or within a line, is rendered as plain rows.
            for known in dict.fromkeys([environments(plain, not display), environments(plain, True)]):
                if html := self._converted(known, display):
                    return html
        return as_text(latex)

    def _converted(self, latex: str, display: bool) -> str:
        """MathML for `latex`; "" if it cannot be converted."""
        if len(latex) > MAX_FORMULA_LENGTH or DEFINITION.search(latex) or depth(latex) > MAX_DEPTH:
            return ""
        try:
            return self._converter.convert_with_global_state(latex, displaystyle=display).replace(*LINE)
        except (LatexError, UnicodeEncodeError):
            return ""


class BoundedFormulas(AbstractContextManager["BoundedFormulas"]):
    """Converts formulas in a child process; one that takes too long, or too much memory, stays text. A context manager.

    The converter's time doubles with each unclosed bracket, and it holds the GIL meanwhile.
    """

    def __init__(self) -> None:
        self._process = BoundedProcess(f"{__name__}:FormulasOfAnswers")
        self._answer, self._seconds = 0, 0.0

    def begin_answer(self) -> None:
        self._answer += 1

    def html(self, latex: str, display: bool) -> str:
        if len(latex) > MAX_FORMULA_LENGTH or self._seconds > FILE_TIMEOUT:
            return as_text(latex)
        began = time.monotonic()
        try:
            return str(self._process.call(self._answer, latex, display))
        except ChildEnded:
            return as_text(latex)
        finally:
            self._seconds += time.monotonic() - began

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.close()


class FormulasOfAnswers:
    """Runs in the child process: converts the formulas of numbered answers."""

    def __init__(self) -> None:
        self._formulas, self._answer = FormulasHere(), 0

    def __call__(self, answer: int, latex: str, display: bool) -> str:
        if answer != self._answer:
            self._answer = answer
            self._formulas.begin_answer()
        return self._formulas.html(latex, display)


def as_text(latex: str) -> str:
    return f"<code>{escape(latex)}</code>"


def depth(latex: str) -> int:
    """An upper bound on how deeply the parts of `latex` are nested.

    A command may take several of the parts after it as arguments, so it counts up to the end of its group or cell.
    """
    deepest = level = scripts = 0
    opened: list[tuple[str, int]] = [("", -1)]
    for part in PART.findall(latex.replace("]", ")")):  # half-open intervals, such as ]0, 1)
        if closer := CLOSERS.get(part):
            opened.append((closer, level - scripts))
            level += 1
        elif part in CLOSERS.values():
            level = _closed(opened, part, level)
        elif part in ("&", "\\\\"):
            level = opened[-1][1] + 1
        elif part[0] == "\\" or part in "^_":
            level += 1
        else:
            level -= scripts  # a one-character exponent ends here
        scripts = scripts + 1 if part in "^_" else 0
        deepest = max(deepest, level)
    return deepest


def _closed(opened: list[tuple[str, int]], closer: str, level: int) -> int:
    """The level after `closer`, which also closes unclosed parentheses inside."""
    while closer != ")" and opened[-1][0] == ")":
        opened.pop()
    return opened.pop()[1] if opened[-1][0] == closer else level
