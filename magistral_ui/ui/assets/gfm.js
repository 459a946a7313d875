// Extensions of CommonMark in answers: kept line breaks, task lists, footnotes, links only to web and mail,
// and a text direction for each block. export/gfm.py has the same rules.

import { footnotes } from "./vendor/renderers.js";

/** @import { CoreState, InlineState, MarkdownIt, Token } from "./types.js" */

const FOLLOWED = /^(?:https?:|mailto:)/i;
const TASK = /^\[([ xX])\](?=[ \u00a0])/;
const REFERENCE = /\[\^([^\s[\]]{1,100})\]/y;
const LETTER = /\p{L}/u;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const MAX_BACKREFERENCES = 20;
const WITHIN_CELL = 4; // tokens: a cell's text comes first, or in a paragraph
const BEGINS = new Set(["blockquote_open", "bullet_list_open", "ordered_list_open"]);
const ENDS = new Set(["blockquote_close", "bullet_list_close", "ordered_list_close"]);

/**
 * Whether `address` may be followed: web and mail.
 * @param {string} address
 */
export const isFollowed = (address) => FOLLOWED.test(address.trim());

/**
 * "rtl" or "ltr", by the first letter of `text`; "" if it has none.
 * @param {string} text
 */
export function directionOf(text) {
  const letter = LETTER.exec(text)?.[0];
  if (!letter) return "";
  return RIGHT_TO_LEFT.test(letter) ? "rtl" : "ltr";
}

/** @param {Token | undefined} token */
const isBlock = (token) => token?.type === "math" && token.meta.display;
/** @param {Token | undefined} token */
const isBreak = (token) => token?.type === "html_tag" && token.tag === "br";

/**
 * Keep line breaks, but only one if a tag or a display breaks the line too; a heading is one line.
 * @param {Token[]} children
 * @param {boolean} inHeading
 */
function breaks(children, inHeading) {
  for (let at = 0; at < children.length; at += 1) {
    const token = children[at];
    if (token.type !== "softbreak" && token.type !== "hardbreak") continue;
    const before =
      children[at - 1]?.content === "" && children[at - 1].type === "text" ? children[at - 2] : children[at - 1];
    if (inHeading || isBlock(before) || isBlock(children[at + 1]) || isBreak(before)) {
      Object.assign(token, { type: "text", tag: "", content: inHeading ? " " : "\n" });
    }
  }
}

/**
 * A link that must not be followed becomes its text.
 * @param {Token[]} children
 */
function links(children) {
  let dropped = 0;
  for (const token of children) {
    if (token.type === "link_open" && !isFollowed(String(token.attrGet("href") ?? ""))) dropped += 1;
    else if (token.type !== "link_close" || !dropped) continue;
    else dropped -= 1;
    Object.assign(token, { type: "text", tag: "", nesting: 0, content: "", attrs: null });
  }
}

/**
 * "[x]" at the beginning of a list item.
 * @param {Token[]} tokens
 * @param {number} at
 * @param {CoreState["Token"]} Token
 */
function task(tokens, at, Token) {
  const [item, , inline] = tokens.slice(at, at + 3);
  const first = inline?.type === "inline" ? inline.children?.[0] : null;
  const mark = first?.type === "text" && TASK.exec(inline.content);
  if (!first || !mark || !first.content.startsWith("[")) return;
  item.attrJoin("class", "task-list-item");
  const box = Object.assign(new Token("task", "", 0), { meta: { done: mark[1] !== " " } });
  first.content = first.content.slice(3);
  inline.children?.unshift(box);
}

const SEEN = new Set(["text", "code_inline", "math", "plain"]);

/**
 * The direction of the visible text of `tokens`, by its first letter.
 * @param {Token[]} tokens
 * @returns {string}
 */
export function directionSeen(tokens) {
  for (const { type, content, children, info } of tokens) {
    const direction = children
      ? directionSeen(children)
      : directionOf(SEEN.has(type) ? content : type === "fence" ? info : "");
    if (direction) return direction;
  }
  return "";
}

/**
 * Give lists, quotations and cells the direction of their first letter; an inner one only if it differs.
 * With dir="auto", the browser would search for that letter again for each added node.
 * @param {Token[]} tokens
 */
function directions(tokens) {
  let [next, seen, depth] = ["", "", 0];
  const ahead = new Array(tokens.length);
  const own = new Array(tokens.length); // within the outermost list or quotation
  for (let at = tokens.length - 1; at >= 0; at -= 1) {
    const { type } = tokens[at];
    if (ENDS.has(type)) {
      if (!depth) seen = "";
      depth += 1;
    } else if (BEGINS.has(type)) depth -= 1;
    if (type === "inline") {
      next = directionOf(tokens[at].content) || next;
      seen = directionSeen([tokens[at]]) || seen;
    }
    ahead[at] = next;
    own[at] = seen;
  }
  /** @type {string[]} */
  const around = [];
  depth = 0;
  tokens.forEach((token, at) => {
    if (token.type === "td_open" || token.type === "th_open") {
      token.attrSet(
        "dir",
        directionSeen(tokens.slice(at + 1, at + WITHIN_CELL).filter(({ type }) => type === "inline")) || "ltr",
      );
    } else if (token.type === "table_open") token.meta = { direction: ahead[at] };
    else if (BEGINS.has(token.type)) {
      if (!depth) token.attrSet("dir", own[at] || "ltr");
      else if (ahead[at] && ahead[at] !== around[depth - 1]) token.attrSet("dir", ahead[at]);
      around[depth] = ahead[at];
      depth += 1;
    } else if (ENDS.has(token.type)) depth -= 1;
  });
}

/**
 * Parse a footnote reference; the plugin's own rule would search for the end of each one again.
 * @param {InlineState} state
 * @param {boolean} silent
 */
function reference(state, silent) {
  const { refs } = state.env.footnotes ?? {};
  REFERENCE.lastIndex = state.pos;
  const [source, label] = (refs && REFERENCE.exec(state.src)) ?? [];
  if (!source || REFERENCE.lastIndex > state.posMax || refs[`:${label}`] === undefined) return false;
  if (!silent) {
    const list = (state.env.footnotes.list ??= []);
    if (refs[`:${label}`] < 0) refs[`:${label}`] = list.push({ label, count: 0 }) - 1;
    const note = list[refs[`:${label}`]];
    state.push("footnote_ref", "", 0).meta = { id: refs[`:${label}`], subId: note.count, label };
    note.count += 1;
  }
  state.pos += source.length;
  return true;
}

/**
 * Put the footnotes at the end, in the order of their references; unreferenced ones come last.
 * @param {CoreState} state
 */
function tail(state) {
  if (!state.env.footnotes) return;
  /** @type {Map<string, Token[]>} */
  const notes = new Map();
  /** @type {Token[]} */
  const rest = [];
  /** @type {Token[] | null} */
  let note = null;
  for (const token of state.tokens) {
    if (token.type === "footnote_reference_open") notes.set(token.meta.label, (note = []));
    else if (token.type === "footnote_reference_close") note = null;
    else (note ?? rest).push(token);
  }
  /** @type {{ label: string, count: number }[]} */
  const list = state.env.footnotes.list ?? [];
  const referred = new Set(list.map(({ label }) => label));
  for (const label of notes.keys()) if (!referred.has(label)) list.push({ label, count: 0 });
  /** @type {(type: string, nesting: -1 | 0 | 1, meta?: object | null) => number} */
  const make = (type, nesting, meta = null) =>
    rest.push(Object.assign(new state.Token(type, "", nesting), { meta, block: true }));
  make("footnote_block_open", 1);
  list.forEach(({ label, count }, id) => {
    make("footnote_open", 1, { id, label });
    const tokens = notes.get(label) ?? [];
    const last = tokens.at(-1)?.type === "paragraph_close" ? tokens.pop() : null;
    for (const token of tokens) rest.push(token);
    for (let subId = 0; subId < Math.min(count, MAX_BACKREFERENCES); subId += 1)
      make("footnote_anchor", 0, { id, subId, label });
    if (last) rest.push(last);
    make("footnote_close", -1);
  });
  make("footnote_block_close", -1);
  state.tokens = rest;
}

/**
 * A markdown-it plugin.
 * @param {MarkdownIt} md
 */
export function gfm(md) {
  md.use(footnotes);
  md.inline.ruler.disable("footnote_inline");
  md.inline.ruler.at("footnote_ref", reference);
  md.core.ruler.at("footnote_tail", tail);
  md.validateLink = () => true; // links() decides, and keeps their text
  md.core.ruler.push("gfm", ({ tokens, Token }) => {
    tokens.forEach(({ type, children }, at) => {
      if (type === "list_item_open") task(tokens, at, Token);
      if (!children) return;
      links(children);
      breaks(children, tokens[at - 1]?.type === "heading_open");
    });
    directions(tokens);
  });
  md.renderer.rules.footnote_caption = (tokens, index) => String(Number(tokens[index].meta?.id) + 1);
  md.renderer.rules.footnote_block_open = () => '<section class="footnotes"><ol>';
  md.renderer.rules.footnote_block_close = () => "</ol></section>";
  md.renderer.rules.task = (tokens, index) => {
    const done = tokens[index].meta?.done;
    return `<span class="task${done ? " done" : ""}">${done ? "☑" : "☐"}</span>`;
  };
}
