// Saves an unsent message across reloads of the tab; only in this tab, and only in the browser.

import { left } from "./login.js";

const DRAFT_KEY = "magistral-ui-draft";
/** @returns {HTMLTextAreaElement | null} */
const field = () => document.querySelector("#box textarea");

function save() {
  if (left()) return;
  const text = field()?.value ?? "";
  const said = [...document.querySelectorAll(".turn.user .said")].at(-1)?.textContent;
  // A message whose confirmation was lost with the connection has been sent already.
  if (text && text !== said) sessionStorage.setItem(DRAFT_KEY, text);
  else sessionStorage.removeItem(DRAFT_KEY);
}

/** Wait until Gradio has rendered the composer, and restore the draft. */
export function setUpDraft() {
  const box = field();
  if (!box) {
    requestAnimationFrame(setUpDraft);
    return;
  }
  const kept = sessionStorage.getItem(DRAFT_KEY);
  if (kept && !box.value) {
    box.value = kept;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }
  addEventListener("pagehide", save);
  addEventListener("login-over", save);
  addEventListener("visibilitychange", () => document.hidden && save());
}
