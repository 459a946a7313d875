// Limits the work of parsing one text, whatever it contains: beyond the limit, it is shown as plain text, and none is lost.
// It counts steps, not time, so that a text looks the same on every machine. export/bounds.py has the same rule for files.

/** @import { BlockState, CoreState, MarkdownIt, Token, TokenHead } from "./types.js" */

const MAX_TOKENS = 5_000; // block tokens of one text, and as many inline tokens; each becomes an element or a piece of text
const CHARACTERS_PER_TOKEN = 40; // this many characters of the prefix, whatever they are, allow one more token
const PREFIX_LENGTH = 200_000;
const MAX_STEPS = 300_000; // plus twice the length of the text; a step is one examination of a mark
const STEPS_PER_NEW = 10; // that each novel character allows; it also allows a token
const MAX_WHOLE_LINE = 4_000; // characters; a longer line is compared piece by piece
const PIECE_LENGTH = 16;
const TOKENS_PER_LINE = 8; // in addition, because short lines become as many elements as long ones
const MIN_REPEATABLE_LINE = 60; // characters from which a repeated line still counts, in part
const REPEATED_SHARE = 1 / 3;
const LABEL_LENGTH_PER_STEP = 16; // characters of a link's label that take as long as one step

/** @type {Record<string, number>} */
const COSTS = { fence: 40, code_block: 40, table_open: 10 }; // tokens that are rendered as many elements

class WorkLimitExceeded extends Error {}

/** What may still be spent. One is enough, because texts are parsed one after the other. */
const left = { tokens: Infinity, steps: Infinity };

/** Spend a token, or several for one that takes as long. */
export function spendToken(count = 1) {
  left.tokens -= count;
  if (left.tokens < 0) throw new WorkLimitExceeded();
}

/** @param {number} steps */
function spendSteps(steps) {
  left.steps -= steps;
  if (left.steps < 0) throw new WorkLimitExceeded();
}

/**
 * Whether a text can be cut before `token`: its line is known, and what follows does not depend on it.
 * @param {Token} token
 */
const canCutBefore = ({ map, nesting, type, hidden }) =>
  map && nesting > 0 && !hidden && type !== "tbody_open" && type !== "thead_open";

/**
 * Where to cut to leave out token number `at`: before its block, row or item, and before any that begin with that.
 * @param {Token[]} tokens
 * @param {number} at
 * @returns {[number, number]}
 */
function cutPosition(tokens, at) {
  while (at > 0 && !(tokens[at] && canCutBefore(tokens[at]))) at -= 1;
  const from = tokens[at]?.map?.[0] ?? 0;
  while (at > 0 && tokens[at - 1].nesting > 0 && (tokens[at - 1].map?.[0] ?? from) === from) at -= 1;
  return [at, from];
}

/**
 * Closing tokens for everything still open after `tokens`.
 * @param {CoreState} state
 * @param {Token[]} tokens
 */
function closingTokens(state, tokens) {
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
 * Show the source text from the block, row or item that contains token number `at`: first to the end of the outermost block
 * around it, then everything after that.
 * @param {CoreState} state
 * @param {number} at
 */
function cut(state, at) {
  const { tokens, src } = state;
  const [to, from] = cutPosition(tokens, at);
  const outermost = tokens.slice(0, to + 1).findLast(({ level, map, nesting }) => level === 0 && map && nesting >= 0);
  tokens.length = to;
  tokens.push(...closingTokens(state, tokens));
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
 * How much of `text` is not repetition, in characters: each allows a token. Ordinary texts say something new in each line, which
 * allows more than they need; repeated marks allow next to nothing, however many there are.
 * @param {string} text
 */
function novelty(text) {
  const seen = new Set();
  let count = 0;
  for (const line of text.split("\n")) {
    const isNew = !seen.has(line);
    seen.add(line);
    if (line.length <= MAX_WHOLE_LINE) {
      if (isNew) count += TOKENS_PER_LINE + line.length;
      else if (line.length >= MIN_REPEATABLE_LINE) count += line.length * REPEATED_SHARE;
    } else if (isNew) {
      const before = seen.size;
      for (let at = 0; at < line.length; at += PIECE_LENGTH) seen.add(line.slice(at, at + PIECE_LENGTH));
      count += (seen.size - before) * PIECE_LENGTH;
    }
  }
  return count;
}

/**
 * Run `work` on the tokens of `state`; if it exceeds the limit, cut them at the token that `place` returns.
 * @param {CoreState} state
 * @param {() => void} work
 * @param {() => number} place
 */
export function limitWork(state, work, place = () => state.tokens.length - 1) {
  const { length } = state.src;
  state.env.novelty ??= novelty(state.src);
  left.tokens = MAX_TOKENS + Math.min(length, PREFIX_LENGTH) / CHARACTERS_PER_TOKEN + state.env.novelty;
  left.steps = MAX_STEPS + 2 * length + STEPS_PER_NEW * state.env.novelty;
  try {
    work();
  } catch (error) {
    if (!(error instanceof WorkLimitExceeded)) throw error;
    cut(state, place());
  }
}

/**
 * Make text nested too deeply a paragraph of the innermost list or quotation; markdown-it would drop it.
 * @param {BlockState} state
 * @param {number} startLine
 * @param {number} endLine
 */
function pushParagraph(state, startLine, endLine) {
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
  limitWork(state, () => state.md.block.parse(state.src, state.md, state.env, state.tokens));
}

/** @param {CoreState} state */
function words(state) {
  const { md, env, tokens } = state;
  let at = 0;
  const all = () => {
    for (; at < tokens.length; at += 1)
      if (tokens[at].type === "inline") md.inline.parse(tokens[at].content, md, env, tokens[at].children ?? []);
  };
  limitWork(state, all, () => at);
}

/**
 * A markdown-it plugin; use it last.
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
    state.level < md.options.maxNesting
      ? tokenize(state, startLine, endLine)
      : pushParagraph(state, startLine, endLine);
  const skipToken = md.inline.skipToken.bind(md.inline);
  md.inline.skipToken = (state) => {
    spendSteps(1);
    skipToken(state);
  };
  const { parseLinkLabel } = md.helpers;
  // A label is compared with the labels of all definitions.
  md.helpers = { ...md.helpers };
  md.helpers.parseLinkLabel = (state, start, disableNested) => {
    const end = parseLinkLabel(state, start, disableNested);
    if (end > start) spendSteps((end - start) / LABEL_LENGTH_PER_STEP);
    return end;
  };
  md.core.ruler.at("block", blocks);
  md.core.ruler.at("inline", words);
  md.renderer.rules.plain = (tokens, index) => `<div class="plain">${md.utils.escapeHtml(tokens[index].content)}</div>`;
}
