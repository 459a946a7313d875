// What models write becomes harmless HTML.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.js";

const { directionSeen, parse, render } = await import("../../magistral_ui/ui/assets/markdown.js");

function html(text, growing = false) {
  const element = document.createElement("div");
  element.append(render(parse(text, growing), "a1"));
  return element;
}

const formulas = (text) => html(text).querySelectorAll(".katex").length;

const HARMFUL = [
  "<script>alert(1)</script>",
  '<img src="x" onerror="alert(1)">',
  '<a href="javascript:alert(1)">x</a>',
  "[x](javascript:alert(1))",
  "![x](https://example.org/a.png)",
  '<iframe src="https://example.org"></iframe>',
  '<div style="background:url(https://example.org)">x</div>',
  "$\\href{javascript:alert(1)}{x}$",
  "$\\includegraphics{https://example.org/a.png}$",
  '<svg><use href="https://example.org"></use></svg>',
];
for (const text of HARMFUL) {
  test(`harmless: ${text}`, () => {
    const element = html(text);
    assert.equal(element.querySelector("script, img, iframe, object, embed, use, style, form"), null);
    for (const each of element.querySelectorAll("*")) {
      for (const { name, value } of each.attributes) {
        assert.ok(!name.startsWith("on"), `${name}=${value}`);
        assert.ok(!/javascript:/i.test(value), `${name}=${value}`);
        if (each.closest(".katex") === null) assert.notEqual(name, "style");
      }
    }
  });
}

test("web and mail may be followed, and nothing else", () => {
  const links = [
    ...html("<https://a.b> [m](mailto:a@b.c) [f](ftp://a.b) [r](/a) [d](data:text/html,x)").querySelectorAll("a"),
  ];
  assert.deepEqual(
    links.map((link) => link.getAttribute("href")),
    ["https://a.b", "mailto:a@b.c"],
  );
  assert.ok(links.every((link) => link.rel === "noopener noreferrer nofollow" && link.target === "_blank"));
});

test("headings are below those of the page", () => {
  const element = html("# One\n\n#### Four");
  assert.deepEqual(
    [...element.querySelectorAll("h3")].map((heading) => heading.className),
    ["level-1", "level-4"],
  );
});

const FORMULAS = {
  $x$: 1,
  "\\(x\\) and \\[y\\]": 2,
  $$x$$: 1,
  "\\begin{align}a&=b\\end{align}": 1,
  "\\boxed{42}": 1,
  "It costs $5 and $10": 0,
  "`$x$`": 0,
  "```\n$x$\n```": 0,
  "US$5, C$6": 0,
  "$x$ is one, $ y$ is none": 1,
  "\\[1\\] as cited": 0,
};
for (const [text, count] of Object.entries(FORMULAS)) {
  test(`${count} formulas in ${JSON.stringify(text)}`, () => assert.equal(formulas(text), count));
}

test("a display whose end has not come is shown as it was written", () => {
  assert.equal(html("$$\nx^2 + ", true).querySelector(".math-open").textContent, "$$\nx^2 +");
});

test("a formula that KaTeX cannot read is shown as it was written", () => {
  assert.match(html("$\\nosuchcommand{$ x").textContent, /nosuchcommand/);
});

test("tags of HTML need a partner", () => {
  assert.equal(html("a <b>bold</b>").querySelector("b").textContent, "bold");
  assert.equal(html("a <b> alone").textContent.trim(), "a <b> alone");
  assert.equal(html("x<br>y").querySelector("br") !== null, true);
});

test("tasks, footnotes and kept line breaks", () => {
  assert.deepEqual(
    [...html("- [x] a\n- [ ] b").querySelectorAll(".task")].map((each) => each.textContent),
    ["☑", "☐"],
  );
  assert.equal(html("a[^1]\n\n[^1]: b").querySelectorAll(".footnotes li").length, 1);
  assert.equal(html("a\nb").querySelectorAll("br").length, 1);
});

test("a text of nothing but marks ends as it was written", () => {
  const element = html("*a* ".repeat(40_000));
  assert.equal(element.textContent.match(/a/g).length, 40_000);
  assert.notEqual(element.querySelector(".plain"), null);
});

test("the direction of lists and cells is that of their first letter", () => {
  assert.equal(html("- שלום\n- world").querySelector("ul").dir, "rtl");
  assert.equal(directionSeen(parse("**123** مرحبا", false)), "rtl");
});
