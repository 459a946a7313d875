// Shows reasoning as plain text behind a disclosure: appended, never rendered again, and not at all while closed.

import { make } from "./dom.js";
import { seconds, t } from "./strings.js";

const SECTION = 8_000; // characters; the browser skips the layout of sections that are out of sight

export class ReasoningView {
  constructor() {
    this.label = make("span", { class: "reasoning-label" });
    this.count = make("span", { class: "reasoning-count" });
    this.summary = make("summary", {}, this.label, this.count);
    this.text = make("div", { class: "reasoning-text", dir: "auto" });
    this.element = make("details", { class: "reasoning", hidden: true }, this.summary, this.text);
    this.received = 0;
    this.held = []; // what came while closed
    this.size = 0; // characters in the last section
    this.touched = false; // opened or closed by hand
    this.summary.addEventListener("click", () => (this.touched = true));
    this.element.addEventListener("toggle", () => this.flush());
  }

  /** Take in the text from character `at` on. */
  take({ at, text }) {
    if (at + text.length <= this.received) return;
    this.gap ||= at > this.received;
    this.held.push(text.slice(Math.max(0, this.received - at)));
    this.received = at + text.length;
    this.element.hidden = false;
    this.flush();
  }

  /** The whole text at the end: only what is missing is added, unless a sleeping tab has missed a piece in the middle. */
  complete(text) {
    if (this.gap) {
      this.text.replaceChildren();
      this.held = [];
      this.section = this.last = null;
      this.received = 0;
    }
    this.take({ at: 0, text });
  }

  flush() {
    if (!this.element.open || !this.held.length) return;
    const text = this.held.join("");
    this.held = [];
    for (let at = 0; at < text.length; at += SECTION) this.append(text.slice(at, at + SECTION));
  }

  append(piece) {
    if (!this.section || this.size > SECTION) {
      // A section is a block of its own, so it begins at a line break where there is one in sight.
      const line = this.section ? piece.indexOf("\n") : -1;
      if (this.section && line < 0 && this.size < 2 * SECTION) return this.grow(piece);
      if (this.section && line >= 0) {
        this.grow(piece.slice(0, line));
        piece = piece.slice(line + 1);
      }
      this.last = null;
      this.section = this.text.appendChild(make("section"));
      this.size = 0;
    }
    this.grow(piece);
  }

  grow(piece) {
    if (!piece) return;
    this.last ??= this.section.appendChild(document.createTextNode(""));
    this.last.appendData(piece);
    this.size += piece.length;
  }

  /** Open or close it, unless the reader has chosen. */
  unfold(open) {
    if (!this.touched && this.element.open !== open) this.element.open = open;
  }

  /** The running header: whole seconds, because they change by themselves. */
  thinking(time, tokens, asked) {
    this.element.hidden = false;
    this.element.classList.add("running");
    this.label.textContent = t(asked ? "turn_answering_now" : "turn_thinking");
    this.count.textContent = `${t("turn_seconds", { seconds: Math.floor(time) })} · ${t("turn_tokens", { count: tokens })}`;
  }

  /** The header that stays. */
  thought(time, tokens, closed = true) {
    this.element.classList.remove("running");
    this.label.textContent = t(closed ? "turn_thought" : "turn_thought_unfinished", { seconds: seconds(time) });
    this.count.textContent = t("turn_tokens", { count: tokens });
  }
}
