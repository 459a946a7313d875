// Shows reasoning as plain text in an accordion (disclosure): appended, never rendered again, and not at all while closed.

import { make } from "./dom.js";
import { seconds, t } from "./i18n.js";

const SECTION_CHARACTERS = 8_000; // per section; the browser skips the layout of sections that are out of sight
const BLOCK_CHARACTERS = 600; // per block, up to the end of the line: what is laid out again when text is appended
const MAX_BLOCK_CHARACTERS = 16_000; // of a block without a line break

/**
 * Set the text of an element without replacing its node, and only if it differs.
 * @param {HTMLElement} element
 * @param {string} text
 */
function write(element, text) {
  const node = /** @type {Text | null} */ (element.firstChild);
  if (!node) element.textContent = text;
  else if (node.data !== text) node.data = text;
}

export class ReasoningView {
  constructor() {
    this.label = make("span", { class: "reasoning-label" });
    this.count = make("span", { class: "reasoning-count" });
    this.edited = make("span", { class: "reasoning-badge", hidden: true }, t("reasoning_edited"));
    this.leftOut = make("span", { class: "reasoning-badge left-out", hidden: true }, t("reasoning_left_out"));
    this.summary = make("summary", {}, this.label, this.count, this.edited, this.leftOut);
    this.text = make("div", { class: "reasoning-text", dir: "auto" });
    this.element = make("details", { class: "reasoning", hidden: true }, this.summary, this.text);
    this.received = 0;
    /** @type {string[]} */
    this.held = []; // what arrived while closed
    /** @type {string[]} */
    this.pieces = []; // everything that has arrived
    /** @type {HTMLElement | null} */
    this.section = null; // the last one, and its last block
    /** @type {HTMLElement | null} */
    this.block = null;
    /** @type {Text | null} */
    this.last = null; // the text of that
    /** @type {(() => Promise<string>) | null} */
    this.fetch = null; // fetches the complete text
    /** @type {(() => Promise<string>) | null} */
    this.filling = null; // the fetch that is running
    this.size = 0; // characters in the last block
    this.room = 0; // characters that still fit into its section
    this.touched = false; // whether the reader has opened or closed it
    this.summary.addEventListener("click", () => (this.touched = true));
    this.element.addEventListener("toggle", () => this.flush());
  }

  /**
   * Append more of the text.
   * @param {string} text
   */
  add(text) {
    if (!text) return;
    this.held.push(text);
    this.pieces.push(text);
    this.received += text.length;
    this.element.hidden = false;
    this.flush();
  }

  /** Clear the text: it will arrive again from its beginning. */
  restart() {
    this.text.replaceChildren();
    this.section = this.block = this.last = null;
    this.size = this.room = 0;
    this.held = [];
    this.pieces = [];
    this.received = 0;
    this.fetch = this.filling = null;
  }

  /**
   * The text is complete. If fewer than `length` characters are here, `fetch` gets them when it is opened.
   * @param {number} length
   * @param {() => Promise<string>} fetch
   */
  complete(length, fetch) {
    this.element.hidden = !length;
    if (this.received === length) return;
    this.restart();
    this.fetch = fetch;
    this.flush();
  }

  /** The complete text, from the server if the page does not have it. */
  async whole() {
    return this.fetch ? this.fetch() : this.pieces.join("");
  }

  async fill() {
    if (this.filling || !this.fetch) return;
    const fetch = (this.filling = this.fetch);
    this.text.setAttribute("aria-busy", "true");
    const text = await fetch();
    this.text.removeAttribute("aria-busy");
    if (this.filling !== fetch) return; // it was restarted meanwhile
    this.restart();
    this.add(text);
  }

  flush() {
    if (this.element.open && this.fetch) this.fill();
    if (!this.element.open || !this.held.length) return;
    const text = this.held.join("");
    this.held = [];
    for (let at = 0; at < text.length; at += BLOCK_CHARACTERS) this.append(text.slice(at, at + BLOCK_CHARACTERS));
  }

  /** @param {string} piece */
  append(piece) {
    if (!this.block || this.size > BLOCK_CHARACTERS) {
      // A block begins at a line break if there is one nearby.
      const line = this.block ? piece.indexOf("\n") : -1;
      if (this.block && line < 0 && this.size < MAX_BLOCK_CHARACTERS) return void this.grow(piece);
      if (this.block && line >= 0) {
        this.grow(piece.slice(0, line));
        piece = piece.slice(line + 1);
      }
      this.begin();
    }
    this.grow(piece);
  }

  begin() {
    this.room -= this.size;
    if (!this.section || this.room <= 0) {
      this.section = this.text.appendChild(make("section"));
      this.room = SECTION_CHARACTERS;
    }
    this.block = this.section.appendChild(make("div"));
    this.size = 0;
    this.last = null;
  }

  /** @param {string} piece */
  grow(piece) {
    if (!piece) return;
    this.last ??= /** @type {HTMLElement} */ (this.block).appendChild(document.createTextNode(""));
    this.last.appendData(piece);
    this.size += piece.length;
  }

  /**
   * Open or close it, unless the reader has chosen.
   * @param {boolean} open
   */
  unfold(open) {
    if (!this.touched && this.element.open !== open) this.element.open = open;
  }

  /**
   * The header while the model reasons: whole seconds, because they keep changing.
   * @param {number} time
   * @param {number} tokens
   * @param {boolean} asked
   */
  thinking(time, tokens, asked) {
    this.element.hidden = false;
    this.element.classList.add("running");
    write(this.label, t(asked ? "turn_answering_now" : "turn_thinking"));
    write(this.count, `${t("turn_seconds", { seconds: Math.floor(time) })} · ${t("turn_tokens", { count: tokens })}`);
  }

  /**
   * The final header.
   * @param {number} time
   * @param {number} tokens
   * @param {boolean} closed
   */
  thought(time, tokens, closed = true) {
    this.element.classList.remove("running");
    write(this.label, t(closed ? "turn_thought" : "turn_thought_unfinished", { seconds: seconds(time) }));
    write(this.count, t("turn_tokens", { count: tokens }));
  }

  /**
   * Further information in the header; transcript.css decides whether to show that the reasoning is not in the context.
   * @param {boolean} edited
   * @param {boolean} mayBeLeftOut
   */
  showBadges(edited, mayBeLeftOut) {
    this.edited.hidden = !edited;
    this.leftOut.hidden = !mayBeLeftOut;
  }

  /**
   * Show `element` in place of the text, or with null, the text again.
   * @param {HTMLElement | null} element
   */
  replaceText(element) {
    const shown = this.element.lastElementChild;
    shown?.replaceWith(element ?? this.text);
    if (!element) return;
    this.touched = true;
    this.element.open = true;
  }
}
