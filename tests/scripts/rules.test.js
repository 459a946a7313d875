// The rules that answers are read by, one by one.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.js";

const { isFormula } = await import("../../magistral_ui/ui/assets/dollar_math.js");
const { UNSPACED } = await import("../../magistral_ui/ui/assets/emphasis.js");
const { directionOf, isFollowed } = await import("../../magistral_ui/ui/assets/gfm.js");
const { DISPLAYS, ENVIRONMENTS, environments } = await import("../../magistral_ui/ui/assets/latex_environments.js");
const { below, firstOutside } = await import("../../magistral_ui/ui/assets/lines.js");

const DOLLARS = [
  ["$x$", true],
  ["$a+b$", true],
  ["H$_2$O", true],
  ["20$^\\circ$", true],
  ["$n$th", true],
  ["$[0, 1)$", true],
  ["$5 and $", false],
  ["$ x$", false],
  ["$x$1", false],
  ["US$5$", false],
  ["$5 (about $", false],
  ["$the cat sat on the mat$", false],
  ["$€5$", false],
  ["$HOME$PATH", false],
  ["${na" + "me}$", false],
  ["$\\d+$", false],
  ["$\\text{€}5$", true],
];
for (const [text, expected] of DOLLARS) {
  test(`${text} is ${expected ? "" : "no "}mathematics`, () => {
    const open = text.indexOf("$");
    assert.equal(isFormula(text, open, text.indexOf("$", open + 1)), expected);
  });
}

test("scripts that set no spaces between words", () => {
  for (const letter of ["漢", "あ", "한", "ไ", "。", "，"]) assert.ok(UNSPACED.test(letter), letter);
  for (const letter of ["a", "é", "ש", ".", " "]) assert.ok(!UNSPACED.test(letter), letter);
});

test("which way a text runs", () => {
  assert.deepEqual(["12 a", "12 ש", "12", "א a", "a א"].map(directionOf), ["ltr", "rtl", "", "rtl", "ltr"]);
});

test("what may be followed", () => {
  const addresses = ["https://a", " HTTP://a", "mailto:a", "ftp://a", "javascript:a", "//a", "/a"];
  assert.deepEqual(addresses.map(isFollowed), [true, true, true, false, false, false, false]);
});

test("environments in KaTeX's words", () => {
  assert.equal(environments("\\begin{multline}x\\end{multline}", false), "\\begin{gather}x\\end{gather}");
  assert.equal(environments("\\begin{align*}x\\end{align*}", false), "\\begin{align*}x\\end{align*}");
  assert.equal(environments("\\begin{align}x\\end{align}", true), "\\begin{aligned}x\\end{aligned}");
  assert.equal(environments("50% of x", false), "50\\% of x");
  assert.ok([...DISPLAYS].every((name) => ENVIRONMENTS.has(name)));
});

test("how many of sorted numbers are below", () => {
  const sorted = [1, 3, 3, 7];
  assert.deepEqual(
    [0, 1, 2, 3, 4, 7, 8].map((value) => below(sorted, value)),
    [0, 0, 1, 1, 3, 3, 4],
  );
  assert.equal(below([], 5), 0);
});

test("the first line outside a list item, looked up once for lines that follow each other", () => {
  let looks = 0;
  const state = {
    blkIndent: 2,
    level: 1,
    sCount: [2, 2, 4, 2, 0, 2],
    isEmpty() {
      looks += 1;
      return false;
    },
  };
  assert.equal(firstOutside(state, 0, 6), 4);
  assert.equal(firstOutside(state, 1, 6), 4);
  assert.equal(firstOutside(state, 3, 6), 4);
  assert.equal(looks, 1);
});
