"""An exported page holds what was said, escaped; formulas become MathML or stay text, and never end the process."""

import random
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Reply
from magistral_ui.export.answer_html import AnswerRenderer
from magistral_ui.export.bounds import PREFIX_LENGTH
from magistral_ui.export.document import EXPORT_CPU_SECONDS, Captions, Document, TimeBudget
from magistral_ui.export.html import ImageTags, export_html
from magistral_ui.export.mathml import MAX_DEPTH, FormulasHere, depth
from magistral_ui.i18n.texts import text
from tests.export.conversations import DOCUMENTS, image, sample

ANSWERS = AnswerRenderer(text)
FORMULAS = [
    r"\frac{a}{b}",
    r"\boxed{\dfrac{1}{2}}",
    r"\begin{aligned}a&=b\\c&=d\end{aligned}",
    r"\begin{align}a&=b\\c&=d\end{align}",
    r"\begin{cases}1&x>0\\0&\text{otherwise}\end{cases}",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    r"\begin{array}{c|c}a&b\\\hline c&d\end{array}",
    r"\sum_{i=1}^n i^2 = \int_0^1 x\,dx \quad\text{if } x \ne y \implies w",
    r"a \equiv b \pmod{n}, \binom{n}{k}, \operatorname{gcd}(a,b), \mathbb{R}^n, \vec{v}\cdot\hat{u}, \overline{AB}",
    r"50\% + \$5 \left(\frac12\right) \lfloor x\rfloor f''(x) \underbrace{x+y}_{z}",
]
NESTS = [("{", "}"), (r"\sqrt{", "}"), (r"\sqrt ", "x"), (r"\left(", r"\right)"), ("x^{", "}"), (r"\frac1", "x")]


OTHERS = [
    *NESTS,
    ("(", ")"),
    ("[", "]"),
    (r"\begin{matrix}", r"\end{matrix}"),
    ("", "&"),
    ("", r"\\"),
    ("", "1"),
    ("", "_1"),
]
"""What stands behind an opener instead of its own closer."""


class Elements(HTMLParser):
    """Collects the names of all elements and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update((name, value or "") for name, value in attrs)


@pytest.mark.parametrize("latex", FORMULAS)
def test_what_magistral_writes_becomes_mathml(latex: str) -> None:
    html = FormulasHere().html(latex, True)
    assert html.startswith('<math display="block">')
    # The second wall lets through all that the converter makes: nothing is lost, which would change what is read.
    before, after = Elements(html), Elements(ANSWERS.html(f"$${latex}$$"))
    assert before.names <= after.names
    assert {name for name, _ in before.attributes} <= {name for name, _ in after.attributes}


@pytest.mark.parametrize(
    "latex",
    ["\\frac{", "x^y^z", "\\unknown{x}", "\\href{javascript:x}{y}", "\ud800", "x" * 20_001, "{" * 201 + "}" * 201]
    + [rf"\{command}\a{{x}}\a" for command in ("def", "gdef", "newcommand", "renewcommand", "let", "newenvironment")],
)
def test_what_cannot_be_drawn_stays_text(latex: str) -> None:
    assert FormulasHere().html(latex, False).startswith("<code>")


@pytest.mark.parametrize(
    "latex", [r"\text{<script>x</script>}", "<img src=x onerror=x>", r"\mathrm{</math><img>}", r"a<b&c"]
)
def test_a_formula_cannot_bring_html_in(latex: str) -> None:
    assert not Elements(FormulasHere().html(latex, True)).names & {"script", "img"}
    assert not Elements(FormulasHere().html(latex + "^y^z", True)).names & {"script", "img"}


def test_depth_counts_what_may_stand_inside_of_something() -> None:
    assert depth("a+b=c") == 0
    assert depth("{a}{b}{c}") == depth("x^2 y_1" * 50) == 1
    assert depth("y_1^{3}" * 50) == 2
    assert depth(r"\sqrt{\sqrt{x}}") == 4
    assert depth(r"\frac1" * 50) == 50
    assert depth(r"\begin{aligned}" + r"\alpha &= \frac12 \\ " * 50 + r"\end{aligned}") == 2
    assert depth(r"[0,1) + (0,1] + ]0, 1[" * 200) == 2
    assert depth("{)" * 200) == depth("{(]" * 200) - 1 == 200
    assert depth(r"\left\end" * 200) == depth(r"\begin\right" * 200) == 200
    assert all(depth(latex) < 25 for latex in FORMULAS)


def nested(source: random.Random) -> str:
    parts = [source.choice(NESTS) for _ in range(source.randint(1, 60))]
    return "".join(begin for begin, _ in parts) + "x" + "".join(end for _, end in reversed(parts))


DEEP = """
import sys, threading
from magistral_ui.export.mathml import FormulasHere, depth
formulas = sys.stdin.read().split("\\n")
threading.stack_size(512 * 1024)
thread = threading.Thread(target=lambda: [FormulasHere().html(each, True) for each in formulas])
thread.start()
thread.join()
print(len(formulas), max(map(depth, formulas)))
"""


def test_no_formula_ends_the_process_even_on_a_small_stack() -> None:
    source = random.Random(7)
    formulas = [nested(source) for _ in range(100)]
    formulas += [begin * count + "x" + end * count for begin, end in NESTS for count in (100, 190, 201, 1_000)]
    formulas += [(begin + end) * count for begin, _ in NESTS for _, end in OTHERS for count in (190, 1_000)]
    ended = subprocess.run(
        [sys.executable, "-c", DEEP],
        input="\n".join(formulas),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[1]) > MAX_DEPTH


@given(st.text(alphabet="ab1 \n`~*_[]()<>!$\\{}|#-&;:/\"'", max_size=60))
def test_an_answer_makes_only_harmless_elements(answer: str) -> None:
    found = Elements(ANSWERS.html(answer))
    assert not found.names & {"script", "img", "style", "iframe", "svg", "form", "input", "object"}
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert name != "src"
        assert name != "href" or value.startswith(("http:", "https:", "mailto:"))


def test_a_very_long_answer_is_shown_as_text() -> None:
    assert ANSWERS.html("<b>*" + "x" * PREFIX_LENGTH) == f'<div class="plain">&lt;b&gt;*{"x" * PREFIX_LENGTH}</div>'


def test_what_takes_too_long_is_shown_as_text_and_by_name() -> None:
    seen = image("red", name="red.png")
    talk = Conversation().say("a", [seen]).with_reply(Reply("", "**one**")).say("b", [image("blue", name="blue.png")])
    document = Document(talk.with_reply(Reply("", "**two**")), "t")
    times = iter(
        [0.0, 1.0, 2.0, EXPORT_CPU_SECONDS, EXPORT_CPU_SECONDS]
    )  # the beginning, then before each picture and each answer
    html = export_html([document], text, clock=lambda: next(times))
    assert "<strong>one</strong>" in html
    assert '<div class="plain">**two**</div>' in html
    assert html.count("<img ") == 1
    assert f'<span class="note">{Captions(text).image_name(image("blue", name="blue.png"), 1)}</span>' in html


def test_decoding_images_counts_as_the_files_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoding = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("magistral_ui.export.document.decoders", lambda: decoding)
    shown = ImageFile.thumbnail

    def slow(self: ImageFile, side: int) -> bytes:
        decoding.seconds += EXPORT_CPU_SECONDS
        return shown(self, side)

    monkeypatch.setattr(ImageFile, "thumbnail", slow)
    talk = Conversation().say("a", (image("red", name="red.png"), image("blue", name="blue.png")))
    assert export_html([Document(talk, "t")], text).count("<img ") == 1


def test_images_have_only_so_much_room_and_one_is_made_once() -> None:
    seen = image("red", name="red.png")
    one = len(ImageTags(text, TimeBudget()).html(seen, 1))
    tags = ImageTags(text, TimeBudget(), room=2 * one)
    drawn = [tags.html(seen, 1) for _ in range(4)]
    assert drawn[0] == drawn[1] == ImageTags(text, TimeBudget()).html(seen, 1)
    assert drawn[-1] == f'<span class="note">{Captions(text).image_name(seen, 1)}</span>'


@settings(max_examples=25)  # each is dear to draw
@given(DOCUMENTS)
def test_any_conversation_makes_a_page_that_opens_and_closes_the_same(document: Document) -> None:
    html = export_html([document], text)
    html.encode("utf-8")
    for name in ("section", "article", "details", "main", "footer"):
        assert html.count(f"<{name}") == html.count(f"</{name}>")
    assert "\x00" not in html
    assert not Elements(html).names & {"script", "iframe", "link"}


def test_images_are_inside_without_a_cameras_metadata() -> None:
    html = export_html([sample()], text)
    assert html.count('src="data:image/jpeg;base64,') == 1
    assert 'alt="Image 1: sum.png, 64 × 48"' in html


def test_only_the_chosen_branch_is_written() -> None:
    html = export_html([sample()], text)
    assert "and plus 20?" in html
    assert "and plus 10?" not in html
    other = replace(sample(), conversation=sample().conversation.choose(3))
    assert "and plus 10?" in export_html([other], text)


def test_what_there_is_to_know_of_a_reply_is_below_it() -> None:
    html = export_html([replace(sample(), conversation=sample().conversation.choose(3))], text)
    assert "Magistral Small 1.2 · abc123 · nf4 · 903 tokens · Temperature 0.7 · Top p 0.95 · Seed 7" in html
    assert "Reasoning budget reached" in html
    assert "Stopped at the token limit." in html
    assert "No answer: the reply ended" in html
    assert "Too many people are already waiting (the limit is 3)" in export_html([sample()], text)


def test_a_failure_and_a_notice_that_nobody_knows_have_their_general_text() -> None:
    reply = Reply(
        failure="from_the_future", failure_values={"key": 1}, notices=("from_the_future", "max_tokens_lowered")
    )
    html = export_html([Document(Conversation().say("a").with_reply(reply))], text)
    assert "Something went wrong" in html
    assert "from_the_future" not in html
    assert "{" not in html.split("</style>")[1]


def test_several_conversations_have_a_list_of_contents() -> None:
    html = export_html([sample(), Document(Conversation(), "A & B\n<i>")], text)
    assert "<title>2 chats</title>" in html
    assert '<a href="#c2" dir="auto">A &amp; B &lt;i&gt;</a>' in html
    assert html.count("<h1") == 2
