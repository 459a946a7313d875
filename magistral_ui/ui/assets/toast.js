// A short message above the composer that disappears automatically, with a button if there is something to undo.

import { make, writing } from "./dom.js";

const SHORT_MS = 2_500; // for a message without a button
const LONG_MS = 12_000; // for one with a button; the timer is paused while the pointer or the focus is in it

export class Toast {
  /** @param {HTMLElement} parent */
  constructor(parent) {
    this.text = make("span");
    this.button = make("button", { type: "button", class: "quiet strong", hidden: true });
    // Add the status before its text; otherwise screen readers would not announce it.
    this.element = parent.appendChild(make("div", { class: "toast", role: "status" }));
    this.button.addEventListener("click", () => {
      const { act } = this;
      this.hide();
      act?.();
    });
    for (const [come, go] of [
      ["pointerenter", "pointerleave"],
      ["focusin", "focusout"],
    ]) {
      this.element.addEventListener(come, () => clearTimeout(this.timer));
      this.element.addEventListener(go, () => this.element.classList.contains("shown") && this.wait());
    }
  }

  /**
   * Show `text`, with a button `label` that calls `act`.
   * @param {string} text
   * @param {string} [label]
   * @param {() => void} [act]
   */
  show(text, label, act) {
    this.act = act;
    this.text.textContent = text;
    this.button.hidden = !label;
    this.button.textContent = label ?? "";
    this.element.replaceChildren(this.text, this.button);
    this.element.classList.add("shown");
    this.wait();
    if (label && !writing()) this.button.focus({ preventScroll: true });
  }

  wait() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.hide(), this.button.hidden ? SHORT_MS : LONG_MS);
  }

  hide() {
    clearTimeout(this.timer);
    this.element.classList.remove("shown");
    this.element.replaceChildren();
  }
}
