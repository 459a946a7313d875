// A menu that opens at a button, on top of everything, without moving anything; it does not know what its items do.

import { make } from "./dom.js";

/** @import { MenuItem } from "./types.js" */

const BUTTON_GAP = 4; // pixels between the button and the popover
const WINDOW_MARGIN = 8; // pixels that stay free at the window's edges

/**
 * Place an open popover `element` at `button`: below it, or above it if there is more room.
 * @param {HTMLElement} element
 * @param {HTMLElement} button
 */
export function placeAt(element, button) {
  const at = button.getBoundingClientRect();
  const { width, height } = element.getBoundingClientRect();
  const [wide, high] = [document.documentElement.clientWidth, window.innerHeight];
  const below = high - at.bottom - BUTTON_GAP - WINDOW_MARGIN;
  const top = below >= height || below >= at.top ? at.bottom + BUTTON_GAP : at.top - BUTTON_GAP - height;
  const side = getComputedStyle(button).direction === "rtl" ? at.right - width : at.left;
  element.style.top = `${Math.max(WINDOW_MARGIN, Math.min(top, high - height - WINDOW_MARGIN))}px`;
  element.style.left = `${Math.max(WINDOW_MARGIN, Math.min(side, wide - width - WINDOW_MARGIN))}px`;
}

/** An element that opens at a button, closes at Escape and at a click elsewhere, and gives the focus back. */
export class Popup {
  /**
   * @param {HTMLElement} parent
   * @param {object} options
   */
  constructor(parent, options) {
    /** @type {HTMLElement | undefined} */
    this.button = undefined; // the button at which it is open
    this.pressed = false;
    this.element = parent.appendChild(make("div", { popover: "auto", ...options }));
    this.element.addEventListener("beforetoggle", ({ newState }) => newState === "closed" && this.closing());
    const stay = () => this.isOpen && this.place();
    for (const event of ["scroll", "resize"]) addEventListener(event, stay, { passive: true });
  }

  get isOpen() {
    return this.element.matches(":popover-open");
  }

  /**
   * Make `button` open this with what `fill()` returns, and close it when pressed again.
   * @param {HTMLElement} button
   * @param {() => Element[]} fill
   */
  opens(button, fill) {
    // A press outside closes a popover before the click arrives, which would then open it again.
    button.addEventListener("pointerdown", () => (this.pressed = this.isOpen && this.button === button));
    button.addEventListener("click", ({ detail: presses }) => {
      const close = this.pressed && presses > 0; // a key presses nothing, and a press may have ended elsewhere
      this.pressed = false;
      if (!close) this.open(button, fill());
    });
  }

  /**
   * @param {HTMLElement} button
   * @param {Element[]} nodes
   */
  open(button, nodes) {
    this.button = button;
    this.element.replaceChildren(...nodes);
    this.element.showPopover();
    button.setAttribute("aria-expanded", "true");
    this.place();
    this.first()?.focus({ preventScroll: true });
  }

  /**
   * The element that gets the focus.
   * @returns {HTMLElement | null | undefined}
   */
  first() {
    return this.element.querySelector("button");
  }

  place() {
    if (!this.button) return;
    const { top, bottom } = this.button.getBoundingClientRect();
    if (!this.button.isConnected || bottom < 0 || top > window.innerHeight) this.close();
    else placeAt(this.element, this.button);
  }

  close() {
    if (this.isOpen) this.element.hidePopover();
  }

  closing() {
    this.button?.setAttribute("aria-expanded", "false");
    if (this.element.contains(document.activeElement)) this.button?.focus({ preventScroll: true });
  }
}

/** Items are `{label, note, act, checked, disabled, why}`, or null for a line between them. */
export class Menu extends Popup {
  /**
   * @param {HTMLElement} parent
   * @param {string} label
   */
  constructor(parent, label) {
    super(parent, { class: "menu", role: "menu", "aria-label": label });
    this.element.addEventListener("keydown", (event) => this.walk(event));
  }

  /** @override */
  first() {
    return this.items[0];
  }

  get items() {
    return [...this.element.querySelectorAll("button")];
  }

  /**
   * Make `button` open this menu with what `items()` returns.
   * @param {HTMLElement} button
   * @param {() => (MenuItem | null)[]} items
   */
  attach(button, items) {
    button.setAttribute("aria-haspopup", "menu");
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
      event.preventDefault();
      this.open(
        button,
        items().map((item) => this.draw(item)),
      );
      if (event.key === "ArrowUp") this.items.at(-1)?.focus();
    });
    this.opens(button, () => items().map((item) => this.draw(item)));
  }

  /** @param {MenuItem | null} item */
  draw(item) {
    if (!item) return make("div", { role: "separator" });
    const { label, note, act, checked, disabled, why } = item;
    const check = checked !== undefined;
    const button = make(
      "button",
      {
        type: "button",
        class: "menu-item",
        role: check ? "menuitemcheckbox" : "menuitem",
        tabIndex: -1,
        "aria-checked": check ? String(checked) : null,
        "aria-disabled": disabled ? "true" : null,
        title: why,
      },
      make("span", {}, label),
      note ? make("span", { class: "menu-note" }, note) : null,
    );
    button.addEventListener("click", () => {
      if (disabled) return;
      const opener = this.button;
      this.close();
      if (opener) act(opener);
    });
    return button;
  }

  /** @param {KeyboardEvent} event */
  walk(event) {
    const { items } = this;
    const at = items.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    /** @type {Record<string, number>} */
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1 + items.length, Home: 0, End: items.length - 1 };
    if (event.key === "Tab")
      this.close(); // the focus is back at the button, from which Tab moves on
    else if (event.key in steps) this.go(event, items[steps[event.key] % items.length]);
    else if (event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const begins = (/** @type {HTMLElement} */ item) =>
        item.textContent.toLowerCase().startsWith(event.key.toLowerCase());
      this.go(event, [...items.slice(at + 1), ...items.slice(0, at + 1)].find(begins));
    }
  }

  /**
   * @param {Event} event
   * @param {HTMLElement | undefined} item
   */
  go(event, item) {
    event.preventDefault();
    item?.focus();
  }
}
