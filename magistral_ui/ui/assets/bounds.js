// Bounds the work of parsing one text, whatever marks it holds: the rest is shown as plain text, and no word is lost.
// It counts steps, not time, so that a text looks the same on every machine. export/bounds.py has the same rule.

/** @import { BlockState, CoreState, MarkdownIt, Token, TokenHead } from "./types.js" */

const TOKENS = 5_000; // of one text, of blocks and again within lines; each becomes an element or a piece of text
const CHARACTERS_PER_TOKEN = 40; // one more token for this many characters at the beginning of the text
const BEGINNING = 200_000;
const STEPS = 300_000; // marks examined, repeatedly if need be; twice the text's length on top
const STEPS_PER_NEW = 10; // for each character that is no repetition, which also earns a token
const LONG_LINE = 4_000; // characters; such a line counts by its pieces
const PIECE = 16;
const LINE = 8; // what each line earns on top, because a short one becomes as many elements as a long one
const SENTENCE = 60; // characters of a line that may come again, and then earns a part of what it did at first
const REPEATED_SHARE = 1 / 3;
const LABEL = 16; // characters of a link's label that take as long as one step

/** @type {Record<string, number>} */
const COSTS = { fence: 40, code_block: 40, table_open: 10 }; // what is rendered as many elements

class Exhausted extends Error {}

/** What may still be spent. There is one, because texts are read one after the other. */
const left = { tokens: Infinity, steps: Infinity };

/** Count a token, or what takes as long as several. */
export function spendToken(count = 1) {
  left.tokens -= count;
  if (left.tokens < 0) throw new Exhausted();
}

/** @param {number} steps */
function spendSteps(steps) {
  left.steps -= steps;
  if (left.steps < 0) throw new Exhausted();
}

/**
 * Whether a text can be cut before `token`: it says on which line it begins, and is no part that the next could not do without.
 * @param {Token} token
 */
const isPlace = ({ map, nesting, type, hidden }) =>
  map && nesting > 0 && !hidden && type !== "tbody_open" && type !== "thead_open";

/**
 * Where to cut so that token number `at` is left out: before its block, row or item, and before what begins with that.
 * @param {Token[]} tokens
 * @param {number} at
 * @returns {[number, number]}
 */
function placeOf(tokens, at) {
  while (at > 0 && !(tokens[at] && isPlace(tokens[at]))) at -= 1;
  const from = tokens[at]?.map?.[0] ?? 0;
  while (at > 0 && tokens[at - 1].nesting > 0 && (tokens[at - 1].map?.[0] ?? from) === from) at -= 1;
  return [at, from];
}

/**
 * The closing tokens of what is still open after `tokens`.
 * @param {CoreState} state
 * @param {Token[]} tokens
 */
function ends(state, tokens) {
  /** @type {Token[]} */
  const open = [];
  for (const token of tokens) {
    if (token.nesting > 0 && !(token.hidden && token.type !== "paragraph_open")) open.push(token);
    else if (token.nesting < 0) open.pop();
  }
  return open
    .reverse()
    .map(({ type, tag, level, markup, hidden }) =>
      Object.assign(new state.Token(type.replace(/_open$/, "_close"), tag, -1), { block: true, level, markup, hidden }),
    );
}

/**
 * Show the text as it was written, from the block, row or item on that holds token number `at`: to the end of the outermost
 * block around it, and everything after that.
 * @param {CoreState} state
 * @param {number} at
 */
function cut(state, at) {
  const { tokens, src } = state;
  const [to, from] = placeOf(tokens, at);
  const outermost = tokens.slice(0, to + 1).findLast(({ level, map, nesting }) => level === 0 && map && nesting >= 0);
  tokens.length = to;
  tokens.push(...ends(state, tokens));
  const lines = src.split("\n");
  const last = outermost?.map?.[1] ?? 0;
  const end = last > from ? last : lines.length;
  const meta = { block: [outermost?.map?.[0] ?? from, end] };
  for (const map of [
    [from, end],
    [end, lines.length],
  ]) {
    const content = lines.slice(...map).join("\n");
    if (content.trim())
      tokens.push(Object.assign(new state.Token("plain", "", 0), { block: true, map, content, meta }));
  }
}

/**
 * What `text` earns by what is no repetition: a token for each such character. Ordinary texts say something new in each line, and
 * so earn more than they need; marks that are repeated earn next to nothing, however many they are.
 * @param {string} text
 */
function news(text) {
  const seen = new Set();
  let count = 0;
  for (const line of text.split("\n")) {
    const isNew = !seen.has(line);
    seen.add(line);
    if (line.length <= LONG_LINE) {
      if (isNew) count += LINE + line.length;
      else if (line.length >= SENTENCE) count += line.length * REPEATED_SHARE;
    } else if (isNew) {
      const before = seen.size;
      for (let at = 0; at < line.length; at += PIECE) seen.add(line.slice(at, at + PIECE));
      count += (seen.size - before) * PIECE;
    }
  }
  return count;
}

/**
 * What `work` makes of the tokens of `state`; where it is too much, they are cut at the token that `place` gives.
 * @param {CoreState} state
 * @param {() => void} work
 * @param {() => number} place
 */
export function bounded(state, work, place = () => state.tokens.length - 1) {
  const { length } = state.src;
  state.env.news ??= news(state.src);
  left.tokens = TOKENS + Math.min(length, BEGINNING) / CHARACTERS_PER_TOKEN + state.env.news;
  left.steps = STEPS + 2 * length + STEPS_PER_NEW * state.env.news;
  try {
    work();
  } catch (error) {
    if (!(error instanceof Exhausted)) throw error;
    cut(state, place());
  }
}

/**
 * What stands too deep within lists and quotations to be one more of them is words of the last.
 * @param {BlockState} state
 * @param {number} startLine
 * @param {number} endLine
 */
function deepest(state, startLine, endLine) {
  let line = startLine;
  while (line < endLine && (state.isEmpty(line) || state.sCount[line] >= state.blkIndent)) line += 1;
  const content = state.getLines(startLine, line, state.blkIndent, false).trim();
  state.line = line;
  if (!content) return;
  state.push("paragraph_open", "p", 1).map = [startLine, line];
  Object.assign(state.push("inline", "", 0), { content, map: [startLine, line], children: [] });
  state.push("paragraph_close", "p", -1);
}

/** @param {CoreState} state */
function blocks(state) {
  bounded(state, () => state.md.block.parse(state.src, state.md, state.env, state.tokens));
}

/** @param {CoreState} state */
function words(state) {
  const { md, env, tokens } = state;
  let at = 0;
  const all = () => {
    for (; at < tokens.length; at += 1)
      if (tokens[at].type === "inline") md.inline.parse(tokens[at].content, md, env, tokens[at].children ?? []);
  };
  bounded(state, all, () => at);
}

/**
 * A markdown-it plugin, to be used last.
 * @param {MarkdownIt} md
 */
export function bounds(md) {
  md.block.State = class extends md.block.State {
    /**
     * @override
     * @param {TokenHead} token
     */
    push(...token) {
      spendToken(COSTS[token[0]]);
      return super.push(...token);
    }
  };
  md.inline.State = class extends md.inline.State {
    /** @override */
    pushPending() {
      spendToken();
      return super.pushPending();
    }

    /**
     * @override
     * @param {TokenHead} token
     */
    push(...token) {
      spendToken();
      return super.push(...token);
    }
  };
  const tokenize = md.block.tokenize.bind(md.block);
  md.block.tokenize = (state, startLine, endLine) =>
    state.level < md.options.maxNesting ? tokenize(state, startLine, endLine) : deepest(state, startLine, endLine);
  const skipToken = md.inline.skipToken.bind(md.inline);
  md.inline.skipToken = (state) => {
    spendSteps(1);
    skipToken(state);
  };
  const { parseLinkLabel } = md.helpers;
  // A label is compared with those of all definitions.
  md.helpers = { ...md.helpers };
  md.helpers.parseLinkLabel = (state, start, disableNested) => {
    const end = parseLinkLabel(state, start, disableNested);
    if (end > start) spendSteps((end - start) / LABEL);
    return end;
  };
  md.core.ruler.at("block", blocks);
  md.core.ruler.at("inline", words);
  md.renderer.rules.plain = (tokens, index) => `<div class="plain">${md.utils.escapeHtml(tokens[index].content)}</div>`;
}
