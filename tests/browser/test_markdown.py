"""What a model writes, in a real browser: rendered well, the same however it came, and never run or fetched."""

import random
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer
from tests.browser.steps import ask, done, reply, visit
from tests.scripted_engine import Pause, Script

RICH = r"""# Heading

Text with *emphasis*, `code`, a [link](https://example.com/a?b=c&d=e) and mail@example.com.

1. one $a_1 + b_1$
2. two \(x \cdot y\)

   - nested

| a | b |
|---|--:|
| 1 | 2 |

\[
\frac{1}{2} + \sqrt{3}
\]

$$E = mc^2$$

```python
def f(x):
    return x  # note

print(f(1))
```

> quoted

It costs $5 or $10, so \boxed{15}.
"""

HOSTILE = r"""<script>window.hacked = 1</script>
<img src="http://evil.invalid/a.png" onerror="window.hacked = 1">
<svg onload="window.hacked = 1"><style>@import url(http://evil.invalid/b.css)</style></svg>
<iframe src="http://evil.invalid/c"></iframe> <details open ontoggle="window.hacked = 1">x</details>

![pixel](http://evil.invalid/d.png) ![p2][ref] [run](javascript:window.hacked=1) [data](data:text/html,<script>1</script>)
[tab](java&#x09;script:window.hacked=1) <javascript:window.hacked=1> [vb](vbscript:x) [file](file:///etc/passwd)

[ref]: http://evil.invalid/e.png

$\href{javascript:window.hacked=1}{x}$ $\includegraphics{http://evil.invalid/f.png}$ $\htmlData{a=b}{x}$
$\unknown{$ \(\frac{1}{\) $$ \[ \boxed{

```html
</code></pre><img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>
```

``` "><img/src/onerror=window.hacked=1>
x
```

| <img src=x onerror=window.hacked=1> | b |
|---|---|
| `</td><script>window.hacked=1</script>` | ‮reversed‬ |

[31mred[0m <a href="javascript:window.hacked=1">raw</a> <base href="http://evil.invalid/"> <form action="http://evil.invalid">
"""


def pieces(text: str, seed: int = 0) -> Script:
    source, parts, at = random.Random(seed), [], 0
    while at < len(text):
        size = source.randint(1, 9)
        parts += [Answer(text[at : at + size]), Pause(0.004)]
        at += size
    return parts


def html(page: Any, serve: Any, script: Script) -> str:
    visit(page, serve(script))
    ask(page, "go")
    answer = done(page).locator(".answer")
    expect(answer.locator(".open")).to_have_count(0)  # the last drawing has been done
    return str(answer.inner_html())


def test_markdown_tables_code_and_mathematics_are_drawn(page: Any, serve: Any) -> None:
    visit(page, serve([Answer(RICH)]))
    ask(page, "go")
    answer = done(page).locator(".answer")
    expect(answer.locator("h3")).to_have_text("Heading")
    expect(answer.locator("table td").last).to_have_text("2")
    expect(answer.locator(".math-display .katex")).to_have_count(2)
    expect(answer.locator("ol .katex")).to_have_count(2)
    expect(answer.locator(".fbox")).to_have_count(1)
    expect(answer.locator(".katex-error")).to_have_count(0)
    expect(answer.locator("code .hljs-keyword").first).to_have_text("def")
    expect(answer).to_contain_text("It costs $5 or $10, so")
    link = answer.locator("a").first
    assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert link.get_attribute("href") == "https://example.com/a?b=c&d=e"


@pytest.mark.parametrize("text", [RICH, HOSTILE, "a\r\n\r\nb\rc", "$$\nx", "```py\nx = 1", "- a\n- b\n\n\n\n1. c\n---"])
def test_streamed_in_pieces_it_ends_as_if_it_came_at_once(page: Any, serve: Any, text: str) -> None:
    at_once = html(page, serve, [Answer(text)])
    streamed = html(page, serve, pieces(text, seed=len(text)))
    assert streamed == at_once


def test_nothing_that_a_model_writes_runs_or_is_fetched(page: Any, serve: Any) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    visit(page, serve(pieces(HOSTILE)))
    ask(page, HOSTILE)
    answer = done(page).locator(".answer")
    expect(answer).to_contain_text("<script>window.hacked = 1</script>")
    assert page.evaluate("window.hacked") is None
    forbidden = "img, script, style, iframe, form, input, base, svg image, object, [onerror], [onload], [ontoggle]"
    assert page.locator(f".answer :is({forbidden}), .said *").count() == 0
    for link in answer.locator("a").all():
        assert (link.get_attribute("href") or "").startswith(("http:", "https:", "mailto:"))
    assert [url for url in requests if "evil" in url] == []


def test_finished_blocks_are_not_drawn_again(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("First *block*.\n\nSecond"), Pause(1), *pieces(" block goes on.\n\n" + RICH)]))
    ask(page, "go")
    first = reply(page).locator(".answer p").first
    expect(first).to_have_text("First block.")
    first.evaluate("(node) => (node.mine = true)")
    done(page)
    assert first.evaluate("(node) => node.mine") is True


def test_a_hundred_thousand_characters_on_one_line_are_borne(page: Any, serve: Any) -> None:
    visit(page, serve([Answer("x*" * 50_000), Pause(0.3), Answer("`" * 1000), Pause(0.3), Answer(" end")]))
    ask(page, "go")
    # A busy machine needs its time for so much in one piece.
    expect(reply(page)).to_have_attribute("data-state", "done", timeout=120_000)
    expect(done(page).locator(".answer")).to_contain_text(" end")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_long_code_is_coloured_beside_the_page_and_what_takes_too_long_stays_as_it_is(page: Any, serve: Any) -> None:
    code = "def total(numbers):\n    return sum(numbers)\n" * 60
    visit(page, serve([Answer(f"```typescript\n{'a' * 50_000}\n```\n\n```py\n{code}```\n\nEnd.")]))
    ask(page, "go")
    answer = done(page).locator(".answer")
    expect(answer.locator(".code").nth(1).locator(".hljs-keyword").first).to_have_text("def")
    assert answer.locator("code").nth(1).text_content() == code
    assert answer.locator("code").first.inner_html() == "a" * 50_000 + "\n"
