"""The cases of cases.json, and the form of drawn HTML in which the page and an exported file are compared."""

import json
import re
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from pathlib import Path

FORMULA = "⟦⟧"
"""Stands for a formula that was drawn: KaTeX's elements on the page, MathML in a file."""
MARKS = (
    *("$", "$$", "\\(", "\\[", "\\begin{align}", "\\boxed{", "[^a]", "{https://"),
    *("<b>", "</b>", "<div>", "</div>", "<td>", "<!--", "<pre>"),
)
"""What opens something, to be written very often."""
HOLLOW = {"br", "hr", "wbr", "input", "img"}


@dataclass(frozen=True)
class Case:
    """A text, what must be and must not be in its normal form, and how many formulas it has (None: whatever)."""

    text: str
    must: list[str] = field(default_factory=list)
    must_not: list[str] = field(default_factory=list)
    formulas: int | None = None

    def problems(self, drawn: str) -> list[str]:
        """What is wrong in `drawn`, a normal form."""
        found = [f"lacks {each}" for each in self.must if each not in drawn]
        found += [f"has {each}" for each in self.must_not if each in drawn]
        if self.formulas not in (None, drawn.count(FORMULA)):
            found.append(f"{drawn.count(FORMULA)} formulas, not {self.formulas}")
        return found


def cases() -> list[Case]:
    """All of them."""
    groups = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
    return [Case(**case) for group in groups.values() for case in group]


def normal(html: str) -> str:
    """`html` with the attributes that matter only, a sign for each formula, and no spaces that are not seen."""
    found = _Normal()
    found.feed(html)
    found.close()
    text = re.sub(r"\s+", " ", "".join(found.parts))
    text = re.sub(r'((?:id|href)="#?fn(?:ref)?-)[a-z0-9]+-', r"\1", text)  # the name of the answer
    block = "p|h3|ul|ol|li|blockquote|pre|table|thead|tbody|tfoot|tr|t[hd]|caption|div|details|summary|hr|br|d[ltd]|fig[a-z]+"
    return re.sub(rf" ?(</?(?:{block})(?: [^<>]*)?>) ?", r"\1", text).replace("<p></p>", "").strip()


class _Normal(HTMLParser):
    """Collects the normal form; `skips` counts what is inside of something that is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.left: list[str] = []
        self.skips = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        classes = (names.get("class") or "").split()
        formula = tag == "math" or bool({"katex", "katex-display"} & set(classes))
        if tag not in HOLLOW:
            self.skips += bool(self.skips) or formula or "code-head" in classes
            if self.skips:
                self.left.append(tag)
        if self.skips:
            if self.skips == 1 and formula:
                self.parts.append(FORMULA)
            return
        # What lies around others, and the colours of code.
        if {"table", "code", "math-display"} & set(classes) or any(each.startswith("hljs-") for each in classes):
            self.left.append("")
            return
        kept = "".join(f' {name}="{escape(value or "")}"' for name, value in attrs if not _is_ours(tag, name))
        if tag not in HOLLOW:
            self.left.append(tag)
        self.parts.append(f"<{tag}{kept}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in HOLLOW or not self.left:
            return
        left = self.left.pop()
        if self.skips:
            self.skips -= 1
        elif left:
            self.parts.append(f"</{left}>")

    def handle_data(self, data: str) -> None:
        if not self.skips:
            self.parts.append(escape(data, quote=False))


OURS = {"class", "rel", "target", "tabindex", "role", "aria-label", "dir", "open", "start"}
"""What the renderers give themselves; nothing of it comes from a model."""


def _is_ours(tag: str, name: str) -> bool:
    return name in OURS or (tag in ("td", "th") and name == "style")
