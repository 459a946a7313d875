// Tells a formula between dollar signs from prices, variables, cells and code; export/dollar_math.py has the same rules.

import { UNSPACED } from "./emphasis.js";

const BLANK = /[\t-\r \u00a0\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;
/** How a formula right after a word begins: H$_2$O, 20$^\circ$. */
const CONTINUES_WORD = /^(?:[\\^_]|\{\})/;
/** What a formula never begins with. */
const NO_BEGINNING = /^(?:[/;,?&%#@)}"*]|:(?!=)|\.(?![0-9])|\|\^|\{[A-Za-z_][\w.()[\]!:?-]*\}(?![_^]))/;
/** How a formula never ends before a word; there, the second dollar sign begins something, too. */
const NO_END = /[:;,./=+\-*&<>@#?~([{"^_]$/;
const WORD_FOLLOWS = /[A-Za-z_{(]/;
const NAME = /^[A-Za-z][A-Za-z0-9_]+$/;
const ORDINAL = /^(?:th|st|nd|rd|e?s)(?![A-Za-z])/;
/** Regular expressions, and Markdown that is not LaTeX. */
const FOREIGN = /(?:^|[^\\])\\(?:[wdsbWDB](?![A-Za-z])|\.)|`|\*\*/;
/** Other currencies: a sign of prices, unless a formula contains a command. */
const CURRENCY = /[€£¥₹₽₩₺₫₴฿]/;
const COMMAND = /\\[A-Za-z]{2,}/;
/** Punctuation that needs no space after it. */
const POINT = /[，。；：！？、،؛]/;
const FOREIGN_WORD = /[^\P{L}A-Za-z]{2}/u;
const MAX_UNIT_LENGTH = 3; // letters: 5元
const SIGN = /[\\^_=<>{}]/;
const WORDS = /(?:^|[\s,;:.!?(])(\p{L}{2,}|\p{L}\.\p{L})(?=$|[\s,;:.!?)])/gu;
const MATHEMATICAL = new Set(
  "mod gcd lcm max min log ln lg exp sin cos tan sec csc cot lim det dim sup inf arg deg div".split(" "),
);
const DIGIT = /[0-9]/;

const lastOf = (/** @type {string} */ text) => text.slice(-1);

/**
 * Whether the text between the dollar signs at `open` and `close` is a formula.
 * @param {string} text
 * @param {number} open
 * @param {number} close
 */
export function isFormula(text, open, close) {
  const content = text.slice(open + 1, close);
  const before = text[open - 1] ?? "";
  const after = text[close + 1] ?? "";
  // Pandoc's rule: "$5 and $10" are prices.
  if (!content || BLANK.test(content[0]) || BLANK.test(lastOf(content)) || DIGIT.test(after)) return false;
  // US$5, 5$ a month, ^a$|^b$, $A$1.
  if (/[A-Za-z0-9]/.test(before) && !CONTINUES_WORD.test(content)) return false;
  if (WORD_FOLLOWS.test(after)) {
    if (NO_END.test(content) || UNSPACED.test(lastOf(content))) return false;
    if ((content[0] === "(" && after === "(") || (content[0] === "{" && after === "{")) return false;
    if (NAME.test(content) && !ORDINAL.test(text.slice(close + 1, close + 5))) return false;
  }
  if (content.length === 1) return true;
  if (CURRENCY.test(content) && !COMMAND.test(content)) return false;
  return !NO_BEGINNING.test(content) && !FOREIGN.test(content) && isBalanced(content) && !isProse(content);
}

/**
 * Whether as many brackets close as open: [0, 1) is an interval, "5 (about 4" is not.
 * @param {string} content
 */
function isBalanced(content) {
  let braces = 0;
  let brackets = 0;
  let bars = 0;
  for (let at = 0; at < content.length; at += 1) {
    const sign = content[at];
    if (sign === "\\") at += 1;
    else if (sign === "{") braces += 1;
    else if (sign === "}") braces -= 1;
    else if (sign === "(" || sign === "[") brackets += 1;
    else if (sign === ")" || sign === "]") brackets -= 1;
    else if (sign === "|") bars += 1;
    if (braces < 0) return false;
  }
  if (braces) return false;
  if (content[0] === "|" && bars % 2 && !/>|\\rangle|\\right/.test(content)) return false;
  return !brackets || /\\(?:left|right|[bB]igg?|[lr]angle|[lr]floor|[lr]ceil|mid)/.test(content);
}

/**
 * Whether the text is words between two prices.
 * @param {string} content
 */
function isProse(content) {
  if (SIGN.test(content)) return false;
  if (DIGIT.test(content[0]) && [...content].filter((each) => UNSPACED.test(each)).length > MAX_UNIT_LENGTH)
    return true;
  const words = [...content.matchAll(WORDS)].map((match) => match[1]).filter((word) => !MATHEMATICAL.has(word));
  const [begins, ends] = [DIGIT.test(content[0]), DIGIT.test(lastOf(content))];
  const sums = begins && ends;
  if ((sums || POINT.test(content)) && FOREIGN_WORD.test(content)) return true;
  const sum = begins || ends;
  return (sums && words.length > 0) || (words.length > 1 && (sum || /[.,;:!?]\s/.test(content))) || words.length > 3;
}
