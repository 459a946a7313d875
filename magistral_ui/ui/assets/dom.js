// Creates elements without ever parsing text as HTML.

import { sentence, t } from "./i18n.js";

/** @import { Message } from "./types.js" */

/**
 * An element; `options` are properties, except `class`, `data` and `aria-*`/`role`, which are attributes.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} options
 * @param {(Node | string | null | undefined)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, options = {}, ...children) {
  /** @type {any} */
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name.startsWith("aria-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/**
 * A quiet button for `act`, with the text `key`. `icon` is shown in place of the text; with `done`, a text for `confirmOn`,
 * the button is as wide as the wider of the two, so that nothing moves.
 * @param {string} act
 * @param {string} key
 * @param {{ icon?: string, done?: string }} options
 */
export function actionButton(act, key, { icon, done } = {}) {
  const label = t(key);
  const options = {
    type: "button",
    class: "quiet",
    data: { act },
    "aria-label": icon ? label : null,
    title: icon ? label : null,
  };
  if (!done) return make("button", options, icon ?? label);
  return make("button", { ...options, class: "quiet confirming" }, make("span", {}, label), make("span", {}, t(done)));
}

/**
 * Show a button's confirmation for a moment.
 * @param {HTMLElement} button
 */
export function confirmOn(button) {
  button.classList.add("confirmed");
  setTimeout(() => button.classList.remove("confirmed"), 1500);
}

/**
 * Show why something failed or was refused, with a button to dismiss it; without a `failure`, hide the alert.
 * @param {HTMLElement} alert
 * @param {Message | string | null} failure
 */
export function fillAlert(alert, failure) {
  alert.hidden = !failure;
  if (!failure) return;
  const dismiss = make("button", { type: "button", class: "quiet" }, t("turn_dismiss"));
  dismiss.addEventListener("click", () => (alert.hidden = true));
  alert.replaceChildren(make("p", {}, typeof failure === "string" ? failure : sentence(failure)), dismiss);
}

/** Whether the visitor is typing somewhere: updates from the server must not take the focus away. */
export const writing = () =>
  Boolean(document.activeElement?.matches("textarea, select, input:not([type=checkbox], [type=radio])"));

/**
 * Make `nodes` the children of `parent` in this order, moving only those that are out of place.
 * @param {Element} parent
 * @param {Element[]} nodes
 */
export function place(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
}

/**
 * Disable a control that cannot be used, and say why below it.
 * @param {Element} control
 * @param {string} reason
 */
export function lack(control, reason) {
  control.classList.add("missing");
  control.append(make("p", { class: "missing-why" }, reason));
  /** @type {NodeListOf<HTMLInputElement>} */
  const inputs = control.querySelectorAll("input, select, button");
  for (const input of inputs) input.disabled = true;
}

/**
 * Copy `text` to the clipboard, also on pages without https, where the Clipboard API is missing.
 * @param {string} text
 */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  const box = make("textarea", { value: text, class: "visually-hidden" });
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
  before?.focus({ preventScroll: true });
}
