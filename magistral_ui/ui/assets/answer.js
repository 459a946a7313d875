// Shows a growing answer: finished blocks are rendered once and left alone, only the last one is rendered again.

import { make } from "./dom.js";

// A definition such as "[1]: https://…" gives a meaning to links far above it, so then all is rendered once more at the end.
// The same goes for a footnote.
const DEFINITION = /^ {0,3}\[[^\]\n]{1,1000}\]:/m;

let views = 0; // how many there have been: each has a name, for its footnotes

const AGAIN = 2_000; // ms after which what could not be fetched is asked for again

let renderers = null; // loaded once, beside the page: half a megabyte that the first paint need not wait for
const loading = () => (renderers ??= load());

/** The line may be down just now. A browser remembers what failed by its address, so each time has another. */
async function load() {
  for (let time = 0; ; time += 1) {
    try {
      return await import(time ? `./markdown.js?time=${time}` : "./markdown.js");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }
}

/** The first tokens of each top-level block. */
function starts(tokens) {
  const found = [];
  tokens.forEach((token, index) => {
    if (token.level === 0 && token.nesting >= 0 && token.map) found.push(index);
  });
  return found;
}

/** Where line number `line` of `text` begins. */
function offsetOf(text, line) {
  let at = 0;
  for (; line > 0; line -= 1) at = text.indexOf("\n", at) + 1;
  return at;
}

/** Whether a fence token ends with its closing line. */
function fenceClosed(token, text) {
  const lines = text.slice(offsetOf(text, token.map[0])).trimEnd().split("\n");
  const last = lines[lines.length - 1].trim();
  return lines.length > 1 && last.startsWith(token.markup) && !last.replaceAll(token.markup[0], "");
}

/** What a reader has unfolded stays so when it is drawn again. */
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
    this.element = make("div", { class: "answer", dir: "auto", hidden: true }, this.open);
    this.received = 0; // characters taken in
    this.tail = ""; // text behind the last finished block
    this.carriage = ""; // a carriage return at the end, whose line feed may follow
    this.final = false;
    this.waiting = false;
    this.pause = 0; // ms between two drawings: a block that is slow to render is rendered less often
    this.drawn = 0; // when the last one ended
    loading();
  }

  /** Take in more of the text. */
  add(text) {
    if (!text || this.final) return;
    this.received += text.length;
    // The end of a line may come in two pieces.
    const held = `${this.carriage}${text}`;
    this.carriage = held.endsWith("\r") ? "\r" : "";
    this.tail += (this.carriage ? held.slice(0, -1) : held).replace(/\r\n?/g, "\n");
    this.schedule();
  }

  /** The whole text: no more will come. */
  complete(text) {
    if (this.final) return;
    this.add(text.slice(this.received));
    this.tail += this.carriage && "\n";
    this.final = true;
    this.whole = text;
    this.draw();
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    const draw = () => {
      this.waiting = false;
      if (!this.done) this.draw();
    };
    // Most often at once, so that it is in the same frame as all else that an update changes.
    const rest = this.drawn + this.pause - performance.now();
    if (rest > 0) setTimeout(draw, rest);
    else queueMicrotask(draw);
  }

  async draw() {
    const renderers = await loading();
    if (this.done) return;
    const { parse } = renderers;
    const render = (tokens) => renderers.render(tokens, this.name);
    const began = performance.now();
    const tokens = parse(this.tail, !this.final);
    const first = starts(tokens);
    const last = first[first.length - 1];
    if (this.final) {
      const again = DEFINITION.test(this.whole);
      const drawn = render(again ? parse(this.whole, false) : tokens);
      keepUnfolded(again ? this.element : this.open, drawn);
      if (again) this.element.replaceChildren(drawn);
      else this.open.replaceWith(drawn);
      this.done = true;
    } else if (last !== undefined) {
      if (first.length > 1) {
        const finished = render(tokens.slice(0, last));
        keepUnfolded(this.open, finished);
        this.open.before(finished);
        this.tail = this.tail.slice(offsetOf(this.tail, tokens[last].map[0]));
        this.fence = null;
      }
      this.drawOpen(tokens.slice(last), render, first.length > 1 ? tokens[last].map[0] : 0);
    }
    this.element.hidden = !this.received;
    this.drawn = performance.now();
    this.pause = Math.min(1000, 8 * (this.drawn - began));
    this.onDrawn?.();
  }

  /** The last block; a fence that is still open only gets its new characters. */
  drawOpen(tokens, render, cut) {
    const [token] = tokens;
    const isOpenFence = token.type === "fence" && !fenceClosed({ ...token, map: [token.map[0] - cut] }, this.tail);
    if (isOpenFence && this.fence) {
      const known = this.fence.data.length;
      if (token.content.length > known) this.fence.appendData(token.content.slice(known));
      return;
    }
    if (isOpenFence) token.meta = { open: true };
    const drawn = render(tokens);
    keepUnfolded(this.open, drawn);
    this.open.replaceChildren(drawn);
    this.fence = null;
    if (isOpenFence) {
      const code = this.open.querySelector("code");
      code.textContent = token.content || "\n";
      if (token.content) this.fence = code.firstChild;
    }
  }
}
