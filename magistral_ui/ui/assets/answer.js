// Renders a growing answer: finished blocks are rendered once, and only the last block is rendered again.

import { make } from "./dom.js";

/** @import { Renderers, Token } from "./types.js" */

// A definition such as "[1]: https://…" gives a meaning to links far above it, and so does a footnote. An answer with one is
// rendered again as a whole when it is complete.
const DEFINITION = /^ {0,3}\[[^\]\n]{1,1000}\]:/m;

let views = 0; // views made so far; the number names each one's footnotes

// The open block is rendered again once it has grown by a fraction of its length, or once many times its rendering time has
// passed; until then new text is shown as plain text. A growing answer therefore costs a constant multiple of a finished one.
const GROWTH = 1 / 8;
const LARGE = 8_000; // characters from which an open block is rendered less often
const LARGE_GROWTH = 1 / 2;
const REST = 40;
const READ_AT_ONCE = 8_000; // characters; more where a block is longer
/** A line that may close a fenced code block. */
const FENCE_LINE = /^ {0,3}(?:`{3,}|~{3,})[ \t]*$/m;
const LONGEST_FENCE = 100; // characters of such a line

const RETRY_MS = 2_000; // ms before a failed fetch is retried

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
 * What a reader has unfolded stays so when it is drawn again.
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
    this.received = 0; // characters taken in
    this.tail = ""; // text after the last finished block
    this.reach = READ_AT_ONCE; // how much of it is parsed at once
    /** @type {Token[]} */
    this.left = []; // the tokens of the open block
    this.carriage = ""; // a trailing carriage return, whose line feed may still come
    this.final = false;
    this.waiting = false;
    this.shown = 0; // characters of the tail that are drawn
    this.next = 0; // how long the tail has to be to be drawn again
    this.due = 0; // when it is drawn again in any case
    /** @type {Text | null} */
    this.rest = null; // the text node of what has come since
    /** @type {Text | null} */
    this.fence = null; // that of an open block of code
    /** @type {Promise<void> | null} */
    this.drawing = null;
    /** @type {(() => void) | undefined} */
    this.onDrawn = undefined;
    this.done = false;
    this.turned = false; // whether its direction is known
    this.whole = ""; // the text once it is complete
    this.behind = false; // whether there is any
    this.pause = 0; // ms between two renderings: a slow block is rendered less often
    this.drawn = 0; // when the last one ended
    loading();
  }

  /**
   * Take in more of the text.
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
   * The whole text: no more will come.
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
   * Draw within `delay` ms, or as soon as may be.
   * @param {number} delay
   */
  schedule(delay = 0) {
    if (this.waiting) return;
    this.waiting = true;
    const draw = () => {
      this.waiting = false;
      if (!this.done) this.draw();
    };
    // Most often at once, so that it is in the same frame as all else that an update changes.
    const rest = Math.max(delay, this.drawn + this.pause - performance.now());
    if (rest > 0) setTimeout(draw, rest);
    else queueMicrotask(draw);
  }

  /** Draw what came, in several goes if it is much, so that the page never waits for long. */
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
   * Whether there is more to draw: the text was more than is read at once.
   * @param {Renderers} renderers
   */
  drawPart({ parse, render, directionSeen }) {
    const began = performance.now();
    this.behind = !this.final && this.tail.length < this.next && began < this.due && this.drawRest();
    if (this.behind) return false;
    const text = this.ahead();
    const isAll = text.length === this.tail.length;
    const tokens = parse(text, !(this.final && isAll));
    this.turn(directionSeen(tokens));
    const goesOn = this.commitPart(tokens, text, isAll, { parse, render });
    if (!goesOn && this.final) this.finish(this.left, { parse, render });
    else if (!goesOn)
      this.drawOpen(this.left.slice(starts(this.left)[0] ?? this.left.length), (open) => render(open, this.name));
    this.rest = null;
    this.shown = goesOn ? 0 : this.tail.length;
    this.next = this.shown * (1 + (this.shown < LARGE ? GROWTH : LARGE_GROWTH));
    this.due = performance.now() + REST * (performance.now() - began);
    return goesOn;
  }

  /** What is read now: as many lines as are enough to hold a whole block. */
  ahead() {
    if (this.tail.length <= this.reach) return this.tail;
    return this.tail.slice(0, this.tail.lastIndexOf("\n", this.reach) + 1 || this.reach);
  }

  /**
   * Draw the finished blocks of `text`; what comes next is `left`. Whether more has to be read for that.
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
      // The first block exceeded its budget. What it becomes does not depend on what follows, or on how that arrived.
      this.commit(parse(text.slice(0, offsetOf(text, end)), false), end, render);
      return true;
    }
    // The block that exceeded its budget is tried again alone.
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
   * Be written in `direction`, that of the first letter.
   * @param {string} direction
   */
  turn(direction) {
    if (this.turned) return;
    this.turned = direction !== "";
    this.element.dir = direction || "ltr";
  }

  /**
   * Draw `tokens`, which are finished, and forget the text before line number `line`.
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
    this.reach = READ_AT_ONCE;
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

  /** Show new text after a large open block as plain text until that is rendered again; false if it must be rendered now. */
  drawRest() {
    const text = this.tail.slice(this.shown);
    if (this.fence) {
      const line = Math.max(this.tail.lastIndexOf("\n", this.shown - 1) + 1, this.shown - LONGEST_FENCE);
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
   * The last block; a fence that is still open only gets its new characters.
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
