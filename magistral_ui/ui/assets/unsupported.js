// Greys out the buttons for what the server that runs the model cannot do, and says why; that comes with the model's state.

import { t } from "./i18n.js";

/** The name of each button's ability, by its act. */
const ABILITIES = { resume: "continue", resume_reasoning: "continue_reasoning", answer_again: "answer_again", rethink: "continue_reasoning", answer_now: "answer_now", keep_reasoning: "keep_reasoning" };
let missing = {};

/** Why the server cannot do `act`, as a text; undefined where it can. */
export const unsupported = (act) => missing[ABILITIES[act]] && t(missing[ABILITIES[act]]);

/** `button` as it has to be: it cannot be pressed where the server cannot do what it says, and can again on another server. */
export function greyOut(button, act = button?.dataset.ability ?? button?.dataset.act) {
  const reason = unsupported(act);
  if (button && reason) {
    button.disabled = true;
    button.title = button.dataset.missing = reason;
  } else if (button?.dataset.missing) {
    button.disabled = false;
    button.removeAttribute("title");
    delete button.dataset.missing;
  }
  return button;
}

/** `{name: key of the reason}`, as ui/panels.py sends it. */
export function showUnsupported(value) {
  missing = value ?? {};
  document.querySelectorAll("#turns [data-act]").forEach((button) => greyOut(button));
}
