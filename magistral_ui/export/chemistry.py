"""Converts chemical formulas, \\ce{2H2 + O2 -> 2H2O}, and physical units, \\pu{123 kJ/mol}, to plain LaTeX, as mhchem does.

The page uses KaTeX's mhchem. Both follow the notation in mhchem's manual; what is not known here stays unchanged.
"""

import re
from collections.abc import Iterator

BEGIN = re.compile(r"\\(ce|pu)\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
MAX_LABEL_LENGTH = 300
"""Characters above or below an arrow."""
MAX_DEPTH = 8
"""Levels of chemistry within chemistry, such as above an arrow."""
ARROW = re.compile(r"<=>>|<<=>|<-->|<=>|<->|->|<-|[⇌→←↔]")
FORTH, BACK = ("xrightarrow", "longrightarrow"), ("xleftarrow", "longleftarrow")
BOTH, BALANCE = ("xleftrightarrow", "longleftrightarrow"), ("xrightleftharpoons", "rightleftharpoons")
ARROWS = {
    **dict.fromkeys(("->", "→"), FORTH),
    **dict.fromkeys(("<-", "←"), BACK),
    **dict.fromkeys(("<->", "↔"), BOTH),
    **dict.fromkeys(("<-->", "<=>", "⇌", "<=>>", "<<=>"), BALANCE),
}
"""The command with labels, and the one without."""
BONDS = {
    **dict.fromkeys("-1", "-"),
    **dict.fromkeys("=2", "="),
    **dict.fromkeys("#3", r"\equiv"),
    **dict.fromkeys(("~", "~-"), r"\sim"),
    **dict.fromkeys(("...", "...."), r"\cdots"),
    "->": r"\rightarrow",
    "<-": r"\leftarrow",
}
PIECE = re.compile(
    r"""(?P<space>\s+)
    |(?P<mathematics>\$[^$]*\$)
    |(?P<bond>\\bond\{([^{}]*)\})
    |(?P<command>\\[A-Za-z]+|\\.)
    |(?P<script>[\^_](?=\S))
    |(?P<gas>\^)
    |(?P<letters>[A-Za-z\u0370-\u03ff]+)
    |(?P<number>[0-9]+(?:[.,][0-9]+)?(?:/[0-9]+)?)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
STANDING = re.compile(r"(?:\(?v\)?|\^|\(\^\))(?=\s|\Z)")
"""A precipitate or a gas."""
SCRIPT = re.compile(r"[0-9]*[.,]?[0-9]*[+\-]|[0-9]+(?:[.,][0-9]+)?|[IVX]+|[A-Za-z]|\\[A-Za-z]+|[*.•·+\-]")
CHARGE = re.compile(r"[+-](?=\s|\Z|[)\]},;:])")
SIGNS = {
    "#": r"{\equiv}",
    "=": "{=}",
    "-": "{-}",
    "*": r"\cdot ",
    ".": r"\cdot ",
    "·": r"\cdot ",
    "•": r"\bullet ",
    "%": r"\%",
    "&": r"\&",
}
NUMBER = re.compile(
    r"([+-]?[0-9]+(?:[.,][0-9]+)*(?:\([0-9]+\))?)(?:\s*(?:([eE])|(?:x|\*|×)\s*10\^?)\{?([+-]?[0-9]+)\}?)?"
)
UNIT = re.compile(r"([A-Za-zµμΩÅ°℃%]+|\\[A-Za-z]+)(?:\^?\{?([+-]?[0-9]+)\}?)?|(//|/)|([.*·])|(\s+)|(.)", re.DOTALL)


def chemistry(latex: str) -> str:
    """`latex` without \\ce and \\pu."""
    return _replaced(latex, 0)


def _replaced(latex: str, depth: int) -> str:
    parts, at = [], 0
    ends = _braces(latex)
    while match := BEGIN.search(latex, at):
        end = ends.get(match.end() - 1)
        if end is None or depth > MAX_DEPTH:
            break
        content = latex[match.end() : end]
        parts += [
            latex[at : match.start()],
            "{",
            _reaction(content, depth) if match[1] == "ce" else _unit(content),
            "}",
        ]
        at = end + 1
    return "".join([*parts, latex[at:]])


def _braces(text: str) -> dict[int, int]:
    """The position at which each opening brace is closed."""
    ends, open_braces = dict[int, int](), list[int]()
    for match in BRACE.finditer(text):
        if match[0] == "{":
            open_braces.append(match.start())
        elif match[0] == "}" and open_braces:
            ends[open_braces.pop()] = match.start()
    return ends


def _reaction(text: str, depth: int) -> str:
    return "".join(_terms(text.strip(), depth))


def _terms(text: str, depth: int) -> Iterator[str]:
    ends, at, atom, scripts = _braces(text), 0, False, ""
    while at < len(text):
        if arrow := ARROW.match(text, at):
            over, under, at = _labels(text, arrow.end(), ends, depth)
            labelled, plain = ARROWS[arrow[0]]
            yield rf"\mathrel{{\{labelled}[{under}]{{{over}}}}}" if over or under else rf"\{plain} "
            at = _skip_spaces(text, at)
            atom = False
            continue
        if text[at] == "{" and at in ends:
            yield _words(text[at + 1 : ends[at]], depth)
            at, atom = ends[at] + 1, True
            continue
        if atom and (charge := CHARGE.match(text, at)):
            yield f"{'{}' if '^' in scripts else ''}^{{{charge[0]}}}"
            scripts = "^"
            at += 1
            continue
        piece = PIECE.match(text, at)
        assert piece is not None
        latex, at, atom = _piece(text, piece, ends, atom, depth)
        script = latex[:1] if latex[:1] in ("^", "_") else ""
        if script and script in scripts:
            yield "{}"  # a third one follows the first two
            scripts = ""
        scripts = scripts + script if script else ""
        yield latex


def _piece(text: str, piece: re.Match[str], ends: dict[int, int], atom: bool, depth: int) -> tuple[str, int, bool]:
    """The LaTeX of `piece`, where it ends, and whether it is an atom or a group, to which what follows belongs."""
    kind, found, at = piece.lastgroup or "sign", piece[0], piece.end()
    if piece["bond"] is not None:
        return f"{{{BONDS.get(piece[4], '-')}}}", at, False
    if kind == "space":
        standing = STANDING.match(text, at)
        if standing:
            return (r"\downarrow " if "v" in standing[0] else r"\uparrow "), standing.end(), False
        return ("" if text[at : at + 1] in "+-=<→⇌" or ARROW.match(text, at) else r"\;"), at, False
    if kind == "mathematics":
        return f"{{{_replaced(found[1:-1], depth + 1)}}}", at, True
    if kind == "script":
        inner, at = _script(text, at, ends, depth)
        return f"{'' if atom else '{}'}{found}{{{inner}}}", at, True
    if kind == "gas":
        return r"\uparrow ", at, False
    if kind == "letters":
        alone = (
            len(found) == 1 and found.islower() and not atom and (not text[at : at + 1].strip() or text[at].isupper())
        )
        return (found if alone else rf"\mathrm{{{found}}}"), at, not alone
    if kind == "number":
        number = rf"\frac{{{found.split('/')[0]}}}{{{found.split('/')[1]}}}" if "/" in found else found
        return (f"_{{{number}}}", at, True) if atom else (rf"{number}\,", at, False)
    if kind == "command":
        start = at
        while text[at : at + 1] == "{" and at in ends:  # its arguments are LaTeX
            at = ends[at] + 1
        return f"{found}{text[start:at] or ' '}", at, True
    if found == "+":
        return "{}+{}", _skip_spaces(text, at), False
    return SIGNS.get(found, found if found not in "{}" else rf"\{found}"), at, found in ")]"


def _skip_spaces(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _script(text: str, at: int, ends: dict[int, int], depth: int) -> tuple[str, int]:
    """The content of a sub- or superscript, and where it ends."""
    if text[at] == "{" and at in ends:
        content = text[at + 1 : ends[at]]
        plain = re.fullmatch(r"[0-9+\-.*•·\s]*", content)
        return (content.replace(".", r"\bullet ") if content == "." else content) if plain else _words(
            content, depth
        ), ends[at] + 1
    match = SCRIPT.match(text, at)
    if match is None:
        return text[at] if text[at] not in "{}%&#\\$^_~" else "", at + 1
    found = {".": r"\bullet", "•": r"\bullet", "·": r"\cdot"}.get(match[0], match[0])
    return (rf"\mathrm{{{found}}}" if found.isupper() else found), match.end()


def _words(text: str, depth: int) -> str:
    """The content of braces: plain words, or a formula."""
    if re.fullmatch(r"[^\\{}$^_~#%&]*", text) and (" " in text or not text.isalnum()):
        return rf"\text{{{text}}}"
    return f"{{{_reaction(text, depth + 1) if depth < MAX_DEPTH else text}}}"


def _labels(text: str, at: int, ends: dict[int, int], depth: int) -> tuple[str, str, int]:
    labels: list[str] = []
    while len(labels) < 2 and text[at : at + 1] == "[" and depth < MAX_DEPTH:
        end, inner = at + 1, 0
        limit = min(len(text), at + MAX_LABEL_LENGTH)
        while end < limit and (text[end] != "]" or inner):
            if end in ends:
                end = ends[end]
            inner += (text[end] == "[") - (text[end] == "]")
            end += 1
        if end >= limit:
            break
        labels.append(_reaction(text[at + 1 : end], depth + 1))
        at = end + 1
    above, below = [*labels, "", ""][:2]
    return above, below, at


def _unit(text: str) -> str:
    """A number with its power of ten, and its unit."""
    text = text.strip().replace("+-", r"\pm ").replace("+/-", r"\pm ")
    number = NUMBER.match(text)
    parts = []
    if number:
        parts.append(number[1].replace(",", "{,}"))
        if number[3]:
            times = r"\cdot " if number[2] == "e" else r"\times "
            parts.append(f"{times}10^{{{number[3]}}}")
        text = text[number.end() :]
        if text.strip():
            parts.append(r"\;" if text.strip()[0] not in "%/" else "")
        text = text.strip()
    for match in UNIT.finditer(text):
        word, power, slash, times, space, other = match.groups()
        if word:
            upright = word.replace("%", r"\%").replace("µ", "μ")
            shown = f"{word} " if word[0] == "\\" else rf"\mathrm{{{upright}}}"
            parts.append(shown + (f"^{{{power}}}" if power else ""))
        elif slash:
            parts.append("/")
        elif times:
            parts.append(r"{\cdot}")
        elif space:
            parts.append(r"\,")
        else:
            parts.append(other if other not in "{}$&#^_~" else rf"\{other}" if other in "{}$&#_" else "")
    return "".join(parts)
