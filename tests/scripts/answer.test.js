// A growing answer ends as one that is drawn at once, however it came; what is open is never drawn half.

import assert from "node:assert/strict";
import { test } from "node:test";
import { pieces, settled } from "./page.js";

const { AnswerView } = await import("../../magistral_ui/ui/assets/answer.js");

const TEXTS = {
  paragraphs: "One *two*.\n\nThree **four** `five`\nsix.\n\n---\n\n> seven\n> eight\n",
  lists: "- a\n- b\n  - c\n\n    d\n\n1. e\n2. f\n\n- [x] done\n- [ ] not",
  code: "Before\n\n```python\ndef f(x):\n    return x\n\n# ``` inside\n```\n\nafter\n\n~~~\nopen to the end",
  table: "| a | b |\n|---|:-:|\n| 1 | *2* |\n| 3 | 4 |\n\nafter",
  formulas: "Let $x_1$ and\n\n$$\na^2 + b^2\n= c^2\n$$\n\nthen \\(y\\), \\[z\\] and \\boxed{1}.",
  html: "<details>\n<summary>More</summary>\n\nHidden *words*\n\n</details>\n\n<b>bold</b> and <sub>low</sub>",
  definitions: "A [link][1] and a note[^a].\n\nMore.\n\n[1]: https://example.org\n[^a]: The note.\n",
  endings: "one\r\ntwo\rthree\r\n\r\nfour\r",
};

/** The view's own name is in the addresses of footnotes. */
const drawn = (view) => view.element.innerHTML.replaceAll(/(fn(?:ref)?-)a\d+-/g, "$1");

/** Resolves at the next drawing after which `isEnough`; the first one loads the renderers, which may take long. */
function nextDrawing(view, isEnough = () => true) {
  return new Promise((resolve) => {
    view.onDrawn = () => isEnough() && resolve();
  });
}

async function add(view, text) {
  const drawing = nextDrawing(view);
  view.add(text);
  await drawing;
}

async function complete(view, text) {
  const drawing = nextDrawing(view, () => view.done);
  view.complete(text);
  await drawing;
  return drawn(view);
}

for (const [name, text] of Object.entries(TEXTS)) {
  test(`${name}: in pieces as at once`, async () => {
    const whole = await complete(new AnswerView(), text);
    for (let seed = 1; seed <= 4; seed += 1) {
      const view = new AnswerView();
      for (const piece of pieces(text, seed)) {
        view.add(piece);
        await settled();
      }
      assert.equal(await complete(view, text), whole);
    }
  });
}

test("finished blocks are drawn once and left alone", async () => {
  const view = new AnswerView();
  await add(view, "first\n\nsecond\n\nthi");
  const [first] = view.element.querySelectorAll("p");
  view.add("rd\n\nfourth");
  await complete(view, "first\n\nsecond\n\nthird\n\nfourth");
  assert.equal(view.element.querySelector("p"), first);
  assert.deepEqual(
    [...view.element.querySelectorAll("p")].map((each) => each.textContent),
    ["first", "second", "third", "fourth"],
  );
});

test("a fence that is open shows what has come", async () => {
  const view = new AnswerView();
  await add(view, "```js\nlet a = 1;\n");
  assert.equal(view.element.querySelector("code").textContent, "let a = 1;\n");
  assert.equal(await complete(view, "```js\nlet a = 1;\n```").then((html) => html.includes("```")), false);
});

test("what the reader has unfolded stays so", async () => {
  const view = new AnswerView();
  await add(view, "<details><summary>More</summary>\n\nwords");
  view.element.querySelector("details").open = true;
  await complete(view, "<details><summary>More</summary>\n\nwords, and more\n\n</details>");
  assert.equal(view.element.querySelector("details").open, true);
});

test("the direction is that of the first letter", async () => {
  for (const [text, direction] of [
    ["123 שלום", "rtl"],
    ["123 hello שלום", "ltr"],
    ["123", "ltr"],
  ]) {
    const view = new AnswerView();
    await complete(view, text);
    assert.equal(view.element.dir, direction);
  }
});

test("an answer without words is hidden", async () => {
  const view = new AnswerView();
  await complete(view, "");
  assert.equal(view.element.hidden, true);
});
