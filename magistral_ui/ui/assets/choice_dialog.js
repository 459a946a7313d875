// Asks for one of a few choices in a small dialog over the page; it does not know what they are about.

import { make } from "./dom.js";
import { t } from "./i18n.js";

/**
 * Resolves to the name of the button that was pressed, or to null after Cancel or Escape. The focus returns to where it was.
 * @param {string} question
 * @param {{ name: string, label: string }[]} choices
 * @returns {Promise<string | null>}
 */
export function askToChoose(question, choices) {
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  const text = make("p", { id: "choice-question" }, question);
  const form = make("form", { method: "dialog" });
  for (const { name, label } of choices) form.append(make("button", { value: name }, label));
  form.append(make("button", { value: "", class: "quiet" }, t("turn_edit_cancel")));
  const dialog = make("dialog", { class: "choice-dialog", "aria-labelledby": "choice-question" }, text, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (before?.isConnected) before.focus({ preventScroll: true });
      resolve(dialog.returnValue || null);
    });
  });
}
