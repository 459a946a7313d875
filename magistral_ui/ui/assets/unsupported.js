// Disables the buttons for what the model server does not support, and says why; the model's state contains that.

import { t } from "./i18n.js";

/** @import { Missing } from "./types.js" */

/** The feature that each button needs, by its `act`. */
/** @type {Record<string, string>} */
const ABILITIES = {
  resume: "continue",
  resume_reasoning: "continue_reasoning",
  answer_again: "answer_again",
  rethink: "continue_reasoning",
  answer_now: "answer_now",
  keep_reasoning: "keep_reasoning",
};
/** @type {Missing} */
let missing = {};

/**
 * Why the server does not support `act`, as a text; undefined if it does.
 * @param {string | undefined} act
 */
export const unsupported = (act) => {
  const reason = missing[ABILITIES[act ?? ""]];
  return reason ? t(reason) : undefined;
};

/**
 * Disable `button` if the server does not support its action, and enable it if it does.
 * @param {HTMLButtonElement} button
 * @param {string} [act]
 */
export function greyOut(button, act = button.dataset.ability ?? button.dataset.act) {
  const reason = unsupported(act);
  if (reason) {
    button.disabled = true;
    button.title = button.dataset.missing = reason;
  } else if (button.dataset.missing) {
    button.disabled = false;
    button.removeAttribute("title");
    delete button.dataset.missing;
  }
  return button;
}

/**
 * Say that the app stopped while a reply was being written; "Continue" is named only where the server supports it.
 * @param {HTMLElement} note
 * @param {string} [act]
 */
export function tellInterruption(note, act = note.dataset.interrupted) {
  note.dataset.interrupted = act;
  note.textContent = t(unsupported(act) ? "notice_cut_off_for_good" : "notice_cut_off");
  return note;
}

/**
 * `{name: key of the reason}`, as ui/panels.py sends it.
 * @param {Missing} value
 */
export function showUnsupported(value) {
  missing = value ?? {};
  /** @type {NodeListOf<HTMLButtonElement>} */
  const buttons = document.querySelectorAll("#turns [data-act]");
  for (const button of buttons) greyOut(button);
  /** @type {NodeListOf<HTMLElement>} */
  const notes = document.querySelectorAll("#turns [data-interrupted]");
  for (const note of notes) tellInterruption(note);
}
