// Makes markdown-it parse LaTeX: \( \), \[ \], $ $, $$ $$, bare environments, and a bare \boxed{}, \ce{} or \pu{}.
// What is not closed stays text. Each text is scanned once, so that no number of delimiters takes long;
// export/latex_delimiters.py has the same rules.

import { spendToken } from "./bounds.js";
import { isFormula } from "./dollar_math.js";
import { DISPLAYS, ENVIRONMENTS } from "./latex_environments.js";
import { below, firstOutside, isGrowing } from "./lines.js";

/** @import { BlockState, InlineState, Mark, MarkdownIt, Marks } from "./types.js" */

const COST = 4; // tokens that a formula counts as, plus half its characters
const MAX_COST = 2_500; // the cost of the longest formula that is rendered; longer ones are text
const MAX_DISPLAY_LINES = 200; // lines after which an unclosed display counts as text
const MAX_LINES_TO_FIRST_SIGN = 3; // within which a sign of LaTeX must occur for two dollars or a bracket to count as an open display
const MARK = /\\(?:(begin|end)\{([A-Za-z]{1,20}\*?)\}|[\s\S])|[${}_^=\n]/g;
const BARE = /\\(?:boxed|ce|pu)\{/y;
const BEGIN = /\\begin\{([A-Za-z]{1,20}\*?)\}/y;
/** What escaped brackets contain that are meant literally: a number, or words. */
const CITED = /^\s*(?:[0-9]+[a-z]?(?:\s*[,;\u2013-]\s*[0-9]+[a-z]?)*|x|\u2026|\.\.\.)\s*$/;
const SIGN = /[\\^_=+<>*/(){}|$]/;
const WORD = /\p{L}{2}/u;
const INDEX = /^[^\s\\=]+$/;
/**
 * Whether the text between "$$" and "$$" is a display: it has a letter or digit, and does not continue a sentence.
 * @param {string} content
 */
const isDisplay = (content) => /[A-Za-z0-9\\]/.test(content) && !/^\s*[;,.)]/.test(content);

/**
 * The positions of the marks in `text`, in order, and where each opening one is closed.
 * @param {string} text
 * @returns {Marks}
 */
function look(text) {
  /** @type {Marks} */
  const found = {
    text,
    round: [],
    square: [],
    dollar: [],
    dollars: [],
    signs: [],
    lines: [],
    braces: new Map(),
    environments: new Map(),
  };
  /** @type {number[]} */
  const braces = [];
  const begun = new Map();
  for (const match of text.matchAll(MARK)) {
    const [mark, word, name] = match;
    const at = match.index;
    if (mark === "\n") found.lines.push(at);
    else if (/^[_^=]|^\\[A-Za-z]/.test(mark)) found.signs.push(at);
    if (mark === "$") {
      if (found.dollar.at(-1) === at - 1) found.dollars.push(at - 1);
      found.dollar.push(at);
    } else if (mark === "\\)") found.round.push(at);
    else if (mark === "\\]") found.square.push(at);
    else if (mark === "{") braces.push(at);
    else if (mark === "}") found.braces.set(braces.pop(), at + 1);
    else if (word === "begin") begun.set(name, [at, begun.get(name)]);
    else if (word === "end" && begun.get(name)) {
      const [begin, outer] = begun.get(name);
      found.environments.set(begin, at);
      begun.set(name, outer);
    }
  }
  return found;
}

/**
 * The marks in the text of `state`, which is scanned once.
 * @param {BlockState | InlineState} state
 * @returns {Marks}
 */
function marksOf(state) {
  if (state.marks?.text === state.src) return state.marks;
  return (state.marks = look(state.src));
}

/** @type {(Mark & { ends: "dollars" | "dollar" | "square" | "round" })[]} */
const KINDS = [
  { begin: "$$", end: "$$", display: true, ends: "dollars" },
  { begin: "$", end: "$", display: false, ends: "dollar" },
  { begin: "\\[", end: "\\]", display: true, ends: "square" },
  { begin: "\\(", end: "\\)", display: false, ends: "round" },
];

/**
 * The formula whose marks begin at `at`: `from` and `to` of what is rendered, `next` after it; `to` is -1 while it is open.
 * @param {BlockState | InlineState} state
 * @param {number} at
 */
function formulaAt(state, at) {
  const { src } = state;
  const marks = marksOf(state);
  const kind = KINDS.find(({ begin }) => src.startsWith(begin, at));
  if (kind) {
    const from = at + kind.begin.length;
    BARE.lastIndex = from; // which may contain formulas with dollar signs of their own
    const behind = (BARE.test(src) && marks.braces.get(BARE.lastIndex - 1)) || from;
    const to = marks[kind.ends][below(marks[kind.ends], behind)] ?? -1;
    return { ...kind, from, to, next: to + kind.end.length };
  }
  BEGIN.lastIndex = at;
  const name = BEGIN.exec(src)?.[1];
  if (!name || !ENVIRONMENTS.has(name.replace("*", ""))) return null;
  const end = `\\end{${name}}`;
  const to = marks.environments.get(at) ?? -1;
  const next = to < 0 ? -1 : to + end.length;
  return { begin: "", end, display: DISPLAYS.has(name.replace("*", "")), from: at, to: next, next };
}

/**
 * Whether nothing else is on the lines from `from` to `to`.
 * @param {Marks} marks
 * @param {number} from
 * @param {number} to
 */
function isAlone({ text, lines }, from, to) {
  const next = below(lines, from);
  return !text.slice((lines[next - 1] ?? -1) + 1, from).trim() && !text.slice(to, lines[below(lines, to)]).trim();
}

/**
 * @param {InlineState} state
 * @param {boolean} silent
 */
function inlineMath(state, silent) {
  const { src, pos, posMax } = state;
  if (src[pos] !== "$" && src[pos] !== "\\") return false;
  BARE.lastIndex = pos;
  if (BARE.test(src)) {
    const end = marksOf(state).braces.get(BARE.lastIndex - 1);
    return end !== undefined && end <= posMax && inlineToken(state, src.slice(pos, end), false, end, silent);
  }
  const found = formulaAt(state, pos);
  if (!found) return false;
  const { begin, display, from, to, next } = found;
  if (to < 0 || next > posMax) return begin !== "$" && openInline(state, from, silent);
  const content = src.slice(from, to);
  if (!content.trim()) return false;
  if (begin === "$" && !isFormula(src, pos, to)) return false;
  if (begin === "$$" && !isDisplay(content)) return false;
  if (begin === "\\[" && isCitation(state, pos, next, content)) return false;
  return inlineToken(state, content, display, next, silent);
}

/**
 * @param {InlineState} state
 * @param {string} content
 * @param {boolean} display
 * @param {number} next
 * @param {boolean} silent
 */
function inlineToken(state, content, display, next, silent) {
  if (!silent) {
    spendToken(COST + content.length / 2);
    const token = state.push("math", "", 0);
    token.content = content;
    token.meta = { display };
  }
  state.pos = next;
  return true;
}

/**
 * \[1\] in running text, or a list\[0\].
 * @param {InlineState} state
 * @param {number} pos
 * @param {number} next
 * @param {string} content
 */
function isCitation(state, pos, next, content) {
  if (/[A-Za-z0-9_)]/.test(state.src[pos - 1] ?? "") && INDEX.test(content)) return true;
  return (CITED.test(content) || (WORD.test(content) && !SIGN.test(content))) && !isAlone(marksOf(state), pos, next);
}

/**
 * Show a formula that never closes as it is, to the end of its line: its signs are not Markdown.
 * @param {InlineState} state
 * @param {number} from
 * @param {boolean} silent
 */
function openInline(state, from, silent) {
  const { src, pos, posMax } = state;
  const { lines, signs } = marksOf(state);
  const end = Math.min(lines[below(lines, from)] ?? posMax, posMax);
  if (!(signs[below(signs, from)] < end)) return false;
  if (!silent) state.pending += src.slice(pos, end);
  state.pos = end;
  return true;
}

/**
 * @param {BlockState} state
 * @param {number} startLine
 * @param {number} endLine
 * @param {boolean} silent
 */
function blockMath(state, startLine, endLine, silent) {
  const start = state.bMarks[startLine] + state.tShift[startLine];
  if (state.sCount[startLine] - state.blkIndent >= 4 || !/[$\\]/.test(state.src[start])) return false;
  const found = formulaAt(state, start);
  if (!found || found.begin === "$" || found.begin === "\\(") return false;
  const { begin, from, to, next } = found;
  if (to < 0) return openBlock(state, startLine, endLine, begin, from, silent);
  const last = below(state.eMarks, next);
  const end = Math.min(firstOutside(state, startLine, endLine), startLine + MAX_DISPLAY_LINES);
  if (last >= end) return openBlock(state, startLine, endLine, begin, from, silent);
  // Text after the closing mark makes it an ordinary paragraph, in which the inline rule finds the display.
  if (state.src.slice(next, state.eMarks[last]).trim()) return false;
  const content = linesOf(state, startLine, from, last, to);
  if (!content.trim() || (begin === "$$" && !isDisplay(content))) return false;
  if (silent) return true;
  return push(state, content, [startLine, last + 1]);
}

/**
 * The text from `from` to `to` in lines `first` to `last`, without the indent or mark of a list or quotation.
 * @param {BlockState} state
 * @param {number} first
 * @param {number} from
 * @param {number} last
 * @param {number} to
 */
function linesOf(state, first, from, last, to) {
  let content = "";
  for (let line = first; line <= last; line += 1) {
    const begin = line === first ? from : state.bMarks[line] + Math.min(state.tShift[line], state.blkIndent);
    content +=
      line === last ? state.src.slice(begin, Math.max(begin, to)) : `${state.src.slice(begin, state.eMarks[line])}\n`;
  }
  return content;
}

/**
 * Show a display that is not closed: as plain text while the text grows, so that nothing jumps when it closes, and at the end
 * as it is, up to the next empty line.
 * @param {BlockState} state
 * @param {number} startLine
 * @param {number} endLine
 * @param {string} begin
 * @param {number} from
 * @param {boolean} silent
 */
function openBlock(state, startLine, endLine, begin, from, silent) {
  const end = firstOutside(state, startLine, endLine);
  const waits = end - startLine <= MAX_DISPLAY_LINES && isGrowing(state, end);
  const { signs } = marksOf(state);
  if (!waits && !(signs[below(signs, from)] < state.eMarks[Math.min(startLine + MAX_LINES_TO_FIRST_SIGN, end) - 1]))
    return false;
  if (silent) return true;
  let line = waits ? end : startLine + 1;
  while (line < end && !state.isEmpty(line)) line += 1;
  const content = linesOf(state, startLine, from, line - 1, state.eMarks[line - 1]);
  return push(state, `${begin}${content}`, [startLine, line], true);
}

/**
 * @param {BlockState} state
 * @param {string} content
 * @param {[number, number]} map
 * @param {boolean} open
 */
function push(state, content, map, open = false) {
  if (!open) spendToken(Math.min(COST + content.length / 2, MAX_COST));
  const token = state.push("math", "", 0);
  token.block = true;
  token.map = map;
  token.content = content.trim();
  token.meta = { display: true, open };
  state.line = map[1];
  return true;
}

/**
 * A markdown-it plugin; `render(content, display)` returns the HTML of one formula.
 * @param {MarkdownIt} md
 * @param {(content: string, display: boolean) => string} render
 */
export function math(md, render) {
  md.inline.ruler.before("escape", "math", inlineMath);
  md.block.ruler.before("fence", "math", blockMath, { alt: ["paragraph", "reference", "blockquote", "list"] });
  md.renderer.rules.math = (tokens, index) => {
    const { block, content, meta } = tokens[index];
    if (meta?.open) return `<pre class="math-open">${md.utils.escapeHtml(content)}</pre>`;
    const display = Boolean(meta?.display);
    const html = render(content, display);
    if (!display) return html;
    const name = block ? "div" : "span"; // in a paragraph, which cannot contain a block
    return `<${name} class="math-display" tabindex="0">${html}</${name}>`;
  };
}
