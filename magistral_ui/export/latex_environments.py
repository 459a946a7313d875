"""The environments of LaTeX that are read without marks around them, in the words that math-core knows.

The names are those of ui/assets/latex_environments.js.
"""

import re

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
"""Those that stand on lines of their own."""
ENVIRONMENTS = DISPLAYS | set(_WITHIN_LINES.split())
"""Those, and others that may also stand within a line."""
MARK = re.compile(r"\\(begin|end)\{([A-Za-z]{1,20})(\*?)\}(\{[^{}]{0,200}\}|\[[^\][]{0,200}\])?")
ALIGNED = set(_ALIGNED.split())
"""What is drawn like `aligned`, and what is so where it cannot be numbered."""
NUMBERED = set(_NUMBERED.split())
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
"""A sign behind a number, where LaTeX would begin a note."""
ARGUMENT = {"alignat", "xalignat", "alignedat", "IEEEeqnarray"}
"""What has an argument that is about columns only."""


def environments(latex: str, plain: bool) -> str:
    """`latex` in math-core's words; `plain` where numbered displays cannot be, and only rows and columns are left."""
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
