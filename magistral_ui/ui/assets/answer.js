// Renders a growing answer: finished blocks are rendered once, and only the last block is rendered again.

import { make } from "./dom.js";

/** @import { Renderers, Token } from "./types.js" */

// A definition such as "[1]: https://…", or a footnote, affects links far above it. An answer with one is
// rendered again as a whole when it is complete.
const DEFINITION = /^ {0,3}\[[^\]\n]{1,1000}\]:/m;

let views = 0; // views created so far; the number makes the ids of each one's footnotes unique

// The open block is rendered again once it has grown by a fraction of its length, or once many times its rendering time has
// passed; until then new text is shown as plain text. A growing answer therefore costs a constant multiple of a finished one.
const GROWTH = 1 / 8;
const LARGE = 8_000; // characters from which an open block is rendered less often
const LARGE_GROWTH = 1 / 2;
const MAX_DELAY_FACTOR = 40; // times its rendering time after which an open block is rendered again in any case
const PARSE_CHUNK = 8_000; // characters to parse at a time; more if a block is longer
/** A line that may close a fenced code block. */
const FENCE_LINE = /^ {0,3}(?:`{3,}|~{3,})[ \t]*$/m;
const MAX_FENCE_LENGTH = 100; // characters of such a line

const RETRY_MS = 2_000; // before a failed import is retried

/** @type {Promise<typeof import("./markdown.js")> | null} */
let renderers = null; // loaded once, after the page: half a megabyte that must not delay the first paint
const loading = () => (renderers ??= load());

/** Retries while the connection is down. Browsers remember a failed import by its address, so each attempt uses another. */
async function load() {
  for (let time = 0; ; time += 1) {
    try {
      return await import(time ? `./markdown.js?time=${time}` : "./markdown.js");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** The line on which `token` begins. */
const lineOf = (/** @type {Token} */ { map }) => map?.[0] ?? 0;

/**
 * The first tokens of each top-level block.
 * @param {Token[]} tokens
 */
function starts(tokens) {
  /** @type {number[]} */
  const found = [];
  tokens.forEach((token, index) => {
    if (token.level === 0 && token.nesting >= 0 && token.map) found.push(index);
  });
  return found;
}

/**
 * Where line number `line` of `text` begins.
 * @param {string} text
 * @param {number} line
 */
function offsetOf(text, line) {
  let at = 0;
  for (; line > 0; line -= 1) at = text.indexOf("\n", at) + 1;
  return at;
}

/**
 * Whether a fence token ends with its closing line; it begins on line `start` of `text`.
 * @param {Token} token
 * @param {string} text
 * @param {number} start
 */
function fenceClosed(token, text, start) {
  const lines = text.slice(offsetOf(text, start)).trimEnd().split("\n");
  const last = lines[lines.length - 1].trim();
  return lines.length > 1 && last.startsWith(token.markup) && !last.replaceAll(token.markup[0], "");
}

/**
 * Keep what the reader has unfolded open when it is rendered again.
 * @param {HTMLElement} before
 * @param {HTMLElement | DocumentFragment} after
 */
function keepUnfolded(before, after) {
  const fresh = after.querySelectorAll("details");
  before.querySelectorAll("details").forEach((details, index) => {
    if (details.open && fresh[index]) fresh[index].open = true;
  });
}

export class AnswerView {
  constructor() {
    this.name = `a${(views += 1)}`;
    this.open = make("div", { class: "open" });
    this.element = make("div", { class: "answer", dir: "ltr", hidden: true }, this.open);
    this.received = 0; // characters received
    this.tail = ""; // text after the last finished block
    this.reach = PARSE_CHUNK; // how much of it is parsed at a time
    /** @type {Token[]} */
    this.left = []; // the tokens of the open block
    this.carriage = ""; // a trailing carriage return, whose line feed may still come
    this.final = false;
    this.waiting = false;
    this.shown = 0; // characters of the tail that are rendered
    this.next = 0; // length of the tail at which it is rendered again
    this.due = 0; // when it is rendered again in any case
    /** @type {Text | null} */
    this.rest = null; // the text node of what has arrived since
    /** @type {Text | null} */
    this.fence = null; // that of an open block of code
    /** @type {Promise<void> | null} */
    this.drawing = null;
    /** @type {(() => void) | undefined} */
    this.onDrawn = undefined;
    this.done = false;
    this.hasDirection = false; // whether its text direction is known
    this.whole = ""; // the text once it is complete
    this.behind = false; // whether text has arrived that is only shown as plain text yet
    this.pause = 0; // ms between two renderings: a slow block is rendered less often
    this.drawn = 0; // when the last rendering ended
    loading();
  }

  /**
   * Add more of the text.
   * @param {string} text
   */
  add(text) {
    if (!text || this.final) return;
    this.received += text.length;
    // The end of a line may come in two pieces.
    const held = `${this.carriage}${text}`;
    this.carriage = held.endsWith("\r") ? "\r" : "";
    this.tail += (this.carriage ? held.slice(0, -1) : held).replace(/\r\n?/g, "\n");
    this.schedule();
  }

  /**
   * Set the complete text; no more will follow.
   * @param {string} text
   */
  complete(text) {
    if (this.final) return;
    this.add(text.slice(this.received));
    this.tail += this.carriage && "\n";
    this.final = true;
    this.whole = text;
    this.draw();
  }

  /**
   * Render after `delay` ms, or later if the last rendering was slow.
   * @param {number} delay
   */
  schedule(delay = 0) {
    if (this.waiting) return;
    this.waiting = true;
    const draw = () => {
      this.waiting = false;
      if (!this.done) this.draw();
    };
    // Usually in the same frame as everything else that an update changes.
    const rest = Math.max(delay, this.drawn + this.pause - performance.now());
    if (rest > 0) setTimeout(draw, rest);
    else queueMicrotask(draw);
  }

  /** Render what has arrived, in several steps if it is long, so that the page stays responsive. */
  draw() {
    return (this.drawing ??= this.drawAll());
  }

  async drawAll() {
    const renderers = await loading();
    const began = performance.now();
    const wasDone = this.done;
    try {
      while (!this.done && this.drawPart(renderers)) await new Promise((resolve) => setTimeout(resolve));
    } finally {
      this.drawing = null;
    }
    if (wasDone) return;
    this.element.hidden = !this.received;
    this.drawn = performance.now();
    this.pause = Math.min(1000, 8 * (this.drawn - began));
    if (this.behind) this.schedule(this.due - this.drawn);
    this.onDrawn?.();
  }

  /**
   * Render one part; returns whether there is more to render.
   * @param {Renderers} renderers
   */
  drawPart({ parse, render, directionSeen }) {
    const began = performance.now();
    this.behind = !this.final && this.tail.length < this.next && began < this.due && this.drawRest();
    if (this.behind) return false;
    const text = this.ahead();
    const isAll = text.length === this.tail.length;
    const tokens = parse(text, !(this.final && isAll));
    this.setDirection(directionSeen(tokens));
    const hasMore = this.commitPart(tokens, text, isAll, { parse, render });
    if (!hasMore && this.final) this.finish(this.left, { parse, render });
    else if (!hasMore)
      this.drawOpen(this.left.slice(starts(this.left)[0] ?? this.left.length), (open) => render(open, this.name));
    this.rest = null;
    this.shown = hasMore ? 0 : this.tail.length;
    this.next = this.shown * (1 + (this.shown < LARGE ? GROWTH : LARGE_GROWTH));
    this.due = performance.now() + MAX_DELAY_FACTOR * (performance.now() - began);
    return hasMore;
  }

  /** The next lines to parse: enough to contain a whole block. */
  ahead() {
    if (this.tail.length <= this.reach) return this.tail;
    return this.tail.slice(0, this.tail.lastIndexOf("\n", this.reach) + 1 || this.reach);
  }

  /**
   * Render the finished blocks of `text` and put the rest into `left`; returns whether more of the text has to be parsed.
   * @param {Token[]} tokens
   * @param {string} text
   * @param {boolean} isAll
   * @param {Pick<Renderers, "parse" | "render">} renderers
   */
  commitPart(tokens, text, isAll, { parse, render }) {
    const first = starts(tokens);
    const [from, end] = tokens.find(({ type }) => type === "plain")?.meta.block ?? [0, 0];
    this.left = tokens;
    if (end && !from && lineOf(/** @type {Token} */ (tokens.at(-1))) === end) {
      // The first block exceeded its work limit. How it is shown must not depend on what follows, or on how it arrived.
      this.commit(parse(text.slice(0, offsetOf(text, end)), false), end, render);
      return true;
    }
    // The block that exceeded its work limit is parsed again alone.
    const last = (end ? first.find((index) => lineOf(tokens[index]) >= from) : first.at(-1)) ?? 0;
    if (last > 0 && lineOf(tokens[last]) > 0 && (end ? from > 0 : first.length > 1)) {
      this.commit(tokens.slice(0, last), lineOf(tokens[last]), render);
      this.left = tokens.slice(last);
      if (end || !isAll) return true;
    } else if (!isAll) {
      this.reach *= 2;
      return true;
    }
    return false;
  }

  /**
   * Set the text direction, that of the first letter.
   * @param {string} direction
   */
  setDirection(direction) {
    if (this.hasDirection) return;
    this.hasDirection = direction !== "";
    this.element.dir = direction || "ltr";
  }

  /**
   * Render `tokens`, which are finished, and drop the text before line number `line`.
   * @param {Token[]} tokens
   * @param {number} line
   * @param {Renderers["render"]} render
   */
  commit(tokens, line, render) {
    const finished = render(tokens, this.name);
    keepUnfolded(this.open, finished);
    this.open.before(finished);
    this.open.replaceChildren();
    this.tail = this.tail.slice(offsetOf(this.tail, line));
    this.reach = PARSE_CHUNK;
    this.fence = null;
  }

  /**
   * @param {Token[]} tokens
   * @param {Pick<Renderers, "parse" | "render">} renderers
   */
  finish(tokens, { parse, render }) {
    let drawn = null;
    if (DEFINITION.test(this.whole)) {
      const all = parse(this.whole, false);
      if (all.at(-1)?.type !== "plain") drawn = render(all, this.name);
    }
    const again = drawn !== null;
    drawn ??= render(tokens, this.name);
    keepUnfolded(again ? this.element : this.open, drawn);
    if (again) this.element.replaceChildren(drawn);
    else this.open.replaceWith(drawn);
    this.done = true;
  }

  /** Append new text as plain text until the open block is rendered again; returns false if that must happen now. */
  drawRest() {
    const text = this.tail.slice(this.shown);
    if (this.fence) {
      const line = Math.max(this.tail.lastIndexOf("\n", this.shown - 1) + 1, this.shown - MAX_FENCE_LENGTH);
      if (FENCE_LINE.test(this.tail.slice(line))) return false;
      this.fence.appendData(text);
    } else {
      this.rest ??= this.open.appendChild(make("div", { class: "plain" })).appendChild(document.createTextNode(""));
      this.rest.appendData(text);
    }
    this.shown = this.tail.length;
    return true;
  }

  /**
   * Render the last block; a code block that is still open only gets its new characters.
   * @param {Token[]} tokens
   * @param {(tokens: Token[]) => DocumentFragment} render
   */
  drawOpen(tokens, render) {
    const [token] = tokens;
    if (!token) return;
    // The text before it has been dropped.
    const isOpenFence = token.type === "fence" && !fenceClosed(token, this.tail, 0);
    if (isOpenFence && this.fence) {
      const { data } = this.fence;
      if (token.content.startsWith(data)) this.fence.appendData(token.content.slice(data.length));
      else this.fence.data = token.content;
      return;
    }
    if (isOpenFence) token.meta = { open: true };
    const drawn = render(tokens);
    keepUnfolded(this.open, drawn);
    this.open.replaceChildren(drawn);
    this.fence = null;
    if (isOpenFence) {
      const code = /** @type {HTMLElement} */ (this.open.querySelector("code"));
      code.textContent = token.content || "\n";
      if (token.content) this.fence = /** @type {Text} */ (code.firstChild);
    }
  }
}
