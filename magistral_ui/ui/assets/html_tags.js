// Parses the harmless HTML tags that models write: an allow-list, without attributes. All other tags stay text, and so does an
// inline tag without a partner on its line. HTML blocks may contain Markdown. export/html_tags.py has the same rules.

import { limitWork, spendToken } from "./bounds.js";
import { below, firstOutside, isGrowing } from "./lines.js";

/** @import { BlockState, BlockTag, CoreState, Frame, InlineState, MarkdownIt, Token } from "./types.js" */

/** Tags allowed within a line, and what they are rendered as, if that differs. */
const INLINE = new Set(
  (
    "a abbr b bdi big cite code data del dfn em font i ins kbd label mark q rp rt ruby s samp small span strike strong sub sup time tt u " +
    "var"
  ).split(" "),
);
const BREAKS = new Set(["br", "wbr"]);
/** Tags allowed on lines of their own. */
const BLOCK = new Set(
  (
    "address article aside blockquote caption center dd details div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6 header hr li main nav ol " +
    "p section summary table tbody td tfoot th thead tr ul"
  ).split(" "),
);
/** @type {Record<string, string>} */
const OTHER = {
  address: "div",
  article: "div",
  aside: "div",
  footer: "div",
  header: "div",
  main: "div",
  nav: "div",
  section: "div",
  big: "span",
  data: "span",
  font: "span",
  label: "span",
  strike: "s",
  time: "span",
  tt: "code",
};
/** Tags that contain text directly, without a paragraph around it. */
const HOLDS_WORDS = new Set("caption dd dt figcaption h3 li summary td th".split(" "));
/** Tags that end with their parent unless something else ends them. */
const ENDS_ITSELF = new Set("caption dd details dt li summary tbody td tfoot th thead tr".split(" "));
/** Which open tags end when the tag begins. */
/** @type {Record<string, string[]>} */
const ENDED_BY = {
  dd: ["dd", "dt"],
  dt: ["dd", "dt"],
  li: ["li"],
  td: ["td", "th"],
  th: ["td", "th"],
  tr: ["td", "th", "tr"],
  tbody: ["td", "th", "tr", "tbody", "thead"],
  tfoot: ["td", "th", "tr", "tbody", "thead"],
};
const TAG = /<(\/?)([A-Za-z][A-Za-z0-9]{0,9})((?:\s[^<>]*|\/)?)>/y;
const BLOCK_TAG = /<(\/?)([A-Za-z][A-Za-z0-9]{0,9})(?:\s[^<>]*|\/)?>/g;
const ADDRESS = /\shref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))/i;
const NOTE = "<!--";
const MAX_DEPTH = 50; // nested tags
/** HTML blocks that are rendered like their Markdown counterparts. */
/** @type {Record<string, string>} */
const LIKE_MARKDOWN = {
  blockquote: "blockquote",
  ol: "ordered_list",
  table: "table",
  td: "td",
  th: "th",
  ul: "bullet_list",
};
const WITHIN_CODE = /<\/?(?:b|code|em|i|kbd|mark|s|samp|span|strong|u|var)(?:\s[^<>]*)?>/gi;

/**
 * The name of the block tag at `at`, in lower case, or "".
 * @param {string} text
 * @param {number} at
 */
function blockAt(text, at) {
  if (text[at] !== "<") return "";
  TAG.lastIndex = at;
  const name = TAG.exec(text)?.[2].toLowerCase() ?? "";
  return BLOCK.has(name) ? name : "";
}

/**
 * What `find` returns for the text of `state`, computed once.
 * @template T
 * @param {BlockState | InlineState} state
 * @param {string} key
 * @param {(text: string) => T} find
 * @returns {T}
 */
function once(state, key, find) {
  const known = (state.found ??= { src: state.src });
  if (known.src !== state.src) state.found = { src: state.src };
  return (state.found[key] ??= find(state.src));
}

/**
 * @param {InlineState} state
 * @param {boolean} silent
 */
function inlineTag(state, silent) {
  const { src, pos, posMax } = state;
  if (src[pos] !== "<") return false;
  if (src.startsWith(NOTE, pos)) return inlineNote(state);
  TAG.lastIndex = pos;
  const [source, slash, word, rest] = TAG.exec(src) ?? [];
  const name = (word ?? "").toLowerCase();
  if (!source || TAG.lastIndex > posMax || !(INLINE.has(name) || BREAKS.has(name))) return false;
  if (!silent) {
    const hollow = BREAKS.has(name) || rest.endsWith("/");
    const token = state.push("html_tag", OTHER[name] ?? name, 0);
    token.meta = { source, turn: hollow ? 0 : slash ? -1 : 1, drawn: BREAKS.has(name) };
    const address = name === "a" && ADDRESS.exec(rest);
    if (address) token.meta.href = address[1] ?? address[2] ?? address[3];
  }
  state.pos += source.length;
  return true;
}

/** @param {InlineState} state */
function inlineNote(state) {
  const { src, pos, posMax } = state;
  if (once(state, "note", (text) => text.lastIndexOf("-->") + 1) <= pos + NOTE.length) return false;
  const end = src.indexOf("-->", pos + NOTE.length) + 3;
  if (end > posMax) return false;
  state.pos = end;
  return true;
}

/**
 * Make lines that begin with a block tag a paragraph, which `split` splits later.
 * @param {BlockState} state
 * @param {number} startLine
 * @param {number} endLine
 * @param {boolean} silent
 */
function htmlLines(state, startLine, endLine, silent) {
  const start = state.bMarks[startLine] + state.tShift[startLine];
  if (state.src[start] !== "<") return false;
  if (state.sCount[startLine] - state.blkIndent >= 4 || !blockAt(state.src, start)) return false;
  if (silent) return true;
  // Indented lines after them, as in an HTML table, are not code.
  let line = startLine + 1;
  for (; line < endLine && !state.isEmpty(line) && state.sCount[line] >= state.blkIndent; line += 1) {
    if (!blockAt(state.src, state.bMarks[line] + state.tShift[line]) && state.sCount[line] - state.blkIndent < 4) break;
  }
  const open = state.push("paragraph_open", "p", 1);
  open.meta = { html: true };
  const token = state.push("inline", "", 0);
  token.content = state.getLines(startLine, line, state.blkIndent, false).trim();
  token.children = [];
  open.map = token.map = [startLine, line];
  state.push("paragraph_close", "p", -1);
  state.line = line;
  return true;
}

/**
 * Parse a comment or <pre>, which may have several lines, up to its end; all ends are found in one pass.
 * @param {BlockState} state
 * @param {number} startLine
 * @param {number} endLine
 * @param {boolean} silent
 */
function htmlWhole(state, startLine, endLine, silent) {
  const start = state.bMarks[startLine] + state.tShift[startLine];
  if (state.src[start] !== "<" || state.sCount[startLine] - state.blkIndent >= 4) return false;
  const isNote = state.src.startsWith(NOTE, start);
  if (!isNote && !/^<pre[\s>]/i.test(state.src.slice(start, start + 5))) return false;
  const ends = once(state, isNote ? "notes" : "pres", (text) =>
    [...text.matchAll(isNote ? /-->/g : /<\/pre>/gi)].map((match) => match.index),
  );
  const mark = isNote ? "-->" : "</pre>";
  const to = ends[below(ends, start + NOTE.length)];
  const last = to === undefined ? endLine - 1 : below(state.eMarks, to);
  if (last >= firstOutside(state, startLine, endLine)) return false;
  if (to === undefined ? !isGrowing(state, endLine) : state.src.slice(to + mark.length, state.eMarks[last]).trim())
    return false;
  if (silent) return true;
  const token = state.push(isNote ? "html_note" : "code_block", isNote ? "" : "code", 0);
  token.map = [startLine, last + 1];
  if (!isNote) {
    const text = state
      .getLines(startLine, last + 1, state.blkIndent, false)
      .trim()
      .replace(/^<pre(?:\s[^<>]*)?>\n?/i, "")
      .replace(/<\/pre>$/i, "");
    token.content = `${state.md.utils.unescapeAll(text.replace(WITHIN_CODE, "")).trimEnd()}\n`;
  }
  state.line = last + 1;
  return true;
}

/**
 * Start and end of each code span in `text`, in which nothing is a tag.
 * @param {string} text
 */
function codeSpans(text) {
  const runs = [...text.matchAll(/`+/g)].map((match) => ({ at: match.index, length: match[0].length }));
  const later = new Map();
  const partner = new Array(runs.length);
  for (let each = runs.length - 1; each >= 0; each -= 1) {
    partner[each] = later.get(runs[each].length);
    later.set(runs[each].length, each);
  }
  /** @type {[number, number][]} */
  const spans = [];
  for (let each = 0; each < runs.length; each += 1) {
    if (partner[each] === undefined) continue;
    const begin = runs[each].at;
    each = partner[each];
    spans.push([begin, runs[each].at + runs[each].length]);
  }
  return spans;
}

/**
 * The block tags in `text` that are meant as tags: they begin a line, have a partner, or end one that is `opened`.
 * `html` says that the text begins with a block tag.
 * @param {string} text
 * @param {boolean} html
 * @param {Map<string, number>} opened
 * @returns {BlockTag[]}
 */
function blockTags(text, html, opened) {
  const spans = codeSpans(text);
  /** @type {BlockTag[]} */
  const tags = [];
  /** @type {Record<string, BlockTag[]>} */
  const begun = {};
  let [behind, span] = [0, 0]; // the end of the last tag, and the next code span
  let leads = true; // only tags were on this line so far
  for (const { 0: source, 1: slash, 2: word, index: at } of text.matchAll(BLOCK_TAG)) {
    while (span < spans.length && spans[span][1] <= at) span += 1;
    const name = word.toLowerCase();
    if (!BLOCK.has(name) || (span < spans.length && spans[span][0] <= at)) continue;
    const between = text.slice(behind, at);
    leads = between.trim() ? /\n[ \t]*$/.test(between) : leads || between.includes("\n");
    behind = at + source.length;
    const tag = {
      at,
      end: behind,
      name,
      source,
      closes: Boolean(slash),
      means: leads || (html && (Boolean(slash) || ENDS_ITSELF.has(name))),
    };
    tags.push(tag);
    if (!slash) (begun[name] ??= []).push(tag);
    else {
      const partner = begun[name]?.pop();
      if (partner) partner.means = true;
      if (partner || opened.get(name)) tag.means = true;
    }
  }
  return tags.filter((tag) => tag.means);
}

/** Splits paragraphs and cells at their block tags, and ends each HTML block within the Markdown block where it began. */
class Blocks {
  /** @param {CoreState} state */
  constructor(state) {
    this.Token = state.Token;
    /** @type {Token[]} */
    this.out = [];
    /** @type {Frame[][]} */
    this.frames = [[]]; // for each open Markdown block, the HTML blocks open in it
    this.depth = 0;
    /** @type {Map<string, number>} */
    this.opened = new Map(); // number of open tags by name
  }

  /**
   * @param {string} type
   * @param {string} tag
   * @param {-1 | 0 | 1} nesting
   * @param {Partial<Token>} fields
   */
  put(type, tag, nesting, fields = {}) {
    spendToken();
    const token = Object.assign(new this.Token(type, tag, nesting), { block: true, level: this.level }, fields);
    this.out.push(token);
    return token;
  }

  /** The HTML blocks in the innermost Markdown block. */
  get frame() {
    return /** @type {Frame[]} */ (this.frames.at(-1));
  }

  get level() {
    return this.frames.length - 1 + this.depth;
  }

  /** @param {Token} token */
  keep(token) {
    token.level += this.depth;
    this.out.push(token);
  }

  /**
   * @param {BlockTag} tag
   * @param {[number, number] | null} map
   * @param {boolean} beside
   */
  open(tag, map, beside) {
    while (ENDED_BY[tag.name]?.includes(this.frame.at(-1)?.name ?? "")) this.end(true);
    const heading = /^h[1-6]$/.test(tag.name);
    const drawn = heading ? "h3" : (OTHER[tag.name] ?? tag.name);
    const token = this.put(`${LIKE_MARKDOWN[drawn] ?? "html_block"}_open`, drawn, 1, { map });
    if (heading) token.attrSet("class", `level-${tag.name[1]}`);
    this.frame.push({ name: tag.name, drawn, source: tag.source, beside, at: this.out.length - 1 });
    this.opened.set(tag.name, (this.opened.get(tag.name) ?? 0) + 1);
    this.depth += 1;
  }

  /**
   * End the innermost HTML block; `partner` says whether its own closing tag ends it, `waits` whether that may still follow.
   * @param {boolean} partner
   * @param {boolean} waits
   */
  end(partner, waits = false) {
    const frame = this.frame.pop();
    if (!frame) return;
    const { name, drawn, source, beside, at } = frame;
    this.depth -= 1;
    this.opened.set(name, (this.opened.get(name) ?? 0) - 1);
    const begin = this.out[at];
    const words = this.out.slice(at + 1, at + 3).find((token) => token.type === "inline");
    if (!partner && !waits && beside && words && !ENDS_ITSELF.has(name)) {
      // “<div> is a block”: a tag that is only mentioned.
      words.content = `${source} ${words.content}`;
      begin.hidden = true;
      return;
    }
    if (!partner && !waits && name === "details") begin.attrSet("open", ""); // never closed, so it must not hide the rest
    this.put(`${LIKE_MARKDOWN[drawn] ?? "html_block"}_close`, drawn, -1);
  }

  /** @param {string} name */
  close(name) {
    const { frame } = this;
    if (!this.opened.get(name) || !frame.some((each) => each.name === name)) return;
    while (frame.at(-1)?.name !== name) this.end(false);
    this.end(true);
  }

  /**
   * The text between two tags.
   * @param {string} text
   * @param {[number, number] | null} map
   * @param {boolean} isCell
   */
  words(text, map, isCell) {
    const bare = isCell || HOLDS_WORDS.has(this.frame.at(-1)?.drawn ?? "");
    this.put("paragraph_open", "p", 1, { map, hidden: bare });
    this.put("inline", "", 0, { content: text, map, children: [], level: this.level + 1 });
    this.put("paragraph_close", "p", -1, { hidden: bare });
  }

  /**
   * @param {string} text
   * @param {BlockTag[]} tags
   * @param {[number, number] | null} map
   * @param {boolean} isCell
   */
  split(text, tags, map, isCell) {
    let at = 0;
    let place = map; // of the first piece: all come from the same lines
    const piece = (/** @type {number} */ to) => {
      const words = text.slice(at, to).trim();
      if (!words) return;
      this.words(words, place, isCell);
      place = null;
    };
    for (const [number, tag] of tags.entries()) {
      piece(tag.at);
      at = tag.end;
      if (tag.name === "p") continue;
      if (tag.closes) this.close(tag.name);
      else {
        const line = text.slice(at, tags[number + 1]?.at).split("\n", 1)[0];
        if (tag.name === "hr") this.put("hr", "hr", 0, { map: place });
        else if (this.depth < MAX_DEPTH) this.open(tag, place, line.trim() !== "");
        place = null;
      }
    }
    piece(text.length);
  }
}

/** @param {CoreState} state */
function blocks(state) {
  if (!state.src.includes("<")) return;
  const { tokens } = state;
  const made = new Blocks(state);
  state.tokens = made.out;
  limitWork(state, () => takeApart(tokens, made, state.env));
}

/**
 * @param {Token[]} tokens
 * @param {Blocks} made
 * @param {any} env
 */
function takeApart(tokens, made, env) {
  // What is open at the end of a growing text may still be closed.
  let last = tokens.length;
  while (env.growing && tokens[last - 1]?.nesting < 0 && tokens[last - 1].type !== "paragraph_close") last -= 1;
  for (let index = 0; index < tokens.length; index += 1) {
    const token = tokens[index];
    const isCell = token.type === "inline" && /^t[dh]_open$/.test(tokens[index - 1]?.type);
    const inline = isCell ? token : token.type === "paragraph_open" ? tokens[index + 1] : null;
    const tags = inline?.content.includes("<") ? blockTags(inline.content, token.meta?.html, made.opened) : [];
    if (inline && tags.length) {
      made.split(inline.content, tags, token.map, isCell);
      if (!isCell) index += 2;
      continue;
    }
    if (token.nesting < 0) while (made.frame.length) made.end(false, index >= last && env.growing);
    if (token.nesting < 0) made.frames.pop();
    made.keep(token);
    if (token.nesting > 0) made.frames.push([]);
  }
  while (made.frame.length) made.end(false, env.growing);
}

/**
 * Pair the inline tags: partners are in the same line and the same emphasis; a tag without one becomes text.
 * @param {Token[]} children
 */
function pairs(children) {
  /** @type {{ open: Token[], count: Record<string, number> }[]} */
  const frames = [{ open: [], count: {} }];
  const asText = (/** @type {Token} */ token) =>
    Object.assign(token, { type: "text", tag: "", nesting: 0, content: token.meta.source });
  for (const token of children) {
    const { open, count } = frames[frames.length - 1];
    if (token.type === "html_tag" && token.meta.turn > 0) {
      if (open.length >= MAX_DEPTH) {
        asText(token);
        continue;
      }
      open.push(token);
      count[token.tag] = (count[token.tag] ?? 0) + 1;
    } else if (token.type === "html_tag" && token.meta.turn < 0) {
      if (!count[token.tag]) {
        asText(token);
        continue;
      }
      for (let last = open.pop(); last; last = open.pop()) {
        count[last.tag] -= 1;
        if (last.tag === token.tag) {
          pair(last, token);
          break;
        }
        asText(last);
      }
    } else if (token.type !== "html_tag" && token.nesting > 0) frames.push({ open: [], count: {} });
    else if (token.type !== "html_tag" && token.nesting < 0 && frames.length > 1) frames.pop()?.open.forEach(asText);
  }
  for (const frame of frames) frame.open.forEach(asText);
}

/**
 * @param {Token} begin
 * @param {Token} end
 */
function pair(begin, end) {
  begin.nesting = 1;
  end.nesting = -1;
  if (begin.tag !== "a") return;
  // A link like any other, or just its text.
  const { href = "" } = begin.meta;
  Object.assign(begin, { type: "link_open", attrs: [["href", href]] });
  end.type = "link_close";
}

/**
 * A markdown-it plugin.
 * @param {MarkdownIt} md
 */
export function htmlTags(md) {
  const alt = { alt: ["paragraph", "reference", "blockquote", "list"] };
  md.inline.ruler.at("html_inline", inlineTag);
  md.block.ruler.before("fence", "html_whole", htmlWhole, alt);
  md.block.ruler.at("html_block", htmlLines, alt);
  md.core.ruler.after("block", "html_blocks", blocks);
  md.core.ruler.after("inline", "html_pairs", ({ tokens }) => {
    for (const { content, children } of tokens) if (children && content.includes("<")) pairs(children);
  });
  md.renderer.rules.html_note = () => "";
  md.renderer.rules.html_tag = (tokens, index) => {
    const { tag, nesting, meta } = tokens[index];
    if (nesting === 0) return meta?.drawn ? `<${tag}>` : "";
    return nesting > 0 ? `<${tag}>` : `</${tag}>`;
  };
}
