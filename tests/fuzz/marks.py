"""The marks of Markdown, LaTeX, HTML and reasoning that the fuzz repeats, and the texts that it makes of them."""

from collections.abc import Iterator

TIMES = 20_000
"""How often a mark, or two, stand in one text."""
_COMMONMARK = (
    *(
        "*",
        "**",
        "***",
        "_",
        "__",
        "`",
        "``",
        "```",
        "~",
        "~~",
        "~~~",
        "#",
        "# ",
        "## ",
        ">",
        "> ",
        "-",
        "- ",
        "+ ",
        "* ",
        "1. ",
        "1) ",
    ),
    *(
        "---",
        "===",
        "    ",
        "\t",
        " ",
        "\n",
        "\n\n",
        "\r",
        "\r\n",
        "  \n",
        "\\\n",
        "\\",
        "\\*",
        "!",
        "[",
        "]",
        "(",
        ")",
        "![",
        "](",
        "](x)",
    ),
    *(
        "[a](b)",
        "![a](b)",
        "[a]",
        "[a][b]",
        "[]",
        "[a]: ",
        "[a]: b\n",
        "\n[a]: <",
        '"',
        "'",
        "<",
        "<https://a.b>",
        "<a@b.c>",
        "&",
        "&amp;",
        "&#",
        "&#x41;",
    ),
)
_GFM = ("[^a]", "[^a]: ", "^[", "|", "|-|", "\n|-|\n", ":---", "| a |", "- [ ] ", "- [x] ")
_HTML = (
    *(
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<?",
        "?>",
        "<!A",
        "<b>",
        "</b>",
        "<sub>",
        "<br>",
        "<a href='",
        "<a href=b>",
        "</a>",
    ),
    *("<div>", "</div>", "<td>", "<li>", "<pre>", "</pre>", "<details>", "</details>", "<summary>", "</", "/>"),
)
_LATEX = (
    *(
        "$",
        "$$",
        "\\(",
        "\\)",
        "\\[",
        "\\]",
        "\\begin{align}",
        "\\end{align}",
        "\\begin{matrix}",
        "\\begin{",
        "\\left(",
        "\\right)",
    ),
    *(
        "\\frac{",
        "\\sqrt{",
        "{",
        "}",
        "^",
        "\\\\",
        "%",
        "=",
        "\\boxed{",
        "\\ce{",
        "\\pu{",
        "$x$",
        "\\(x\\)",
        "\\[x\\]",
        "\\alpha",
        "x^2",
    ),
)
_REASONING = ("[THINK]", "[/THINK]", "<think>", "</think>")
_OTHER = (
    *(
        "a",
        "a ",
        "word ",
        "0",
        ".",
        ",",
        ":",
        "/",
        "//",
        "@",
        "http://",
        "https://a.b/",
        "www.a.b ",
        "a@b.c",
        "mailto:",
        "{https://",
        "\u201c",
    ),
    *(
        "\u202e",
        "\u2066",
        "\u200d",
        "\u0301",
        "\U0001f600",
        "\u4e2d",
        "\u0627",
        "x" * 50,
        "\u00a0",
        "\ufe0f",
        "\ufeff",
        "\x00",
    ),
)
MARKS = (*_COMMONMARK, *_GFM, *_HTML, *_LATEX, *_REASONING, *_OTHER)
PREFIXES = (
    "- ",
    "> ",
    "1. a\n   ",
    "| a | b |\n|---|---|\n",
    "```js\n",
    "$$",
    "\\(",
    "[a](",
    "[^a]: x\n\n",
    "<div>",
    "**",
)


def texts(times: int = TIMES) -> Iterator[str]:
    """Every mark alone, all pairs in turn, each many times; and each mark behind what begins a block or a formula."""
    for first in MARKS:
        yield first * times
        for second in MARKS:
            yield (first + second) * times
    for prefix in PREFIXES:
        for mark in MARKS:
            yield prefix + mark * times
