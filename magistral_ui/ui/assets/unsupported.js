// Greys out the buttons for what the server that runs the model cannot do, and says why; that comes with the model's state.

import { t } from "./i18n.js";

/** @import { Missing } from "./types.js" */

/** The name of each button's ability, by its act. */
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
 * Why the server cannot do `act`, as a text; undefined where it can.
 * @param {string | undefined} act
 */
export const unsupported = (act) => {
  const reason = missing[ABILITIES[act ?? ""]];
  return reason ? t(reason) : undefined;
};

/**
 * `button` as it has to be: it cannot be pressed where the server cannot do what it says, and can again on another server.
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
 * `{name: key of the reason}`, as ui/panels.py sends it.
 * @param {Missing} value
 */
export function showUnsupported(value) {
  missing = value ?? {};
  /** @type {NodeListOf<HTMLButtonElement>} */
  const buttons = document.querySelectorAll("#turns [data-act]");
  for (const button of buttons) greyOut(button);
}
