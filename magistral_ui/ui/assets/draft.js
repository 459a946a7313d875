// Keeps the words that are not sent yet through a reload of the tab; only in this tab, and only in the browser.

import { left } from "./login.js";

const DRAFT_KEY = "magistral-ui-draft";
/** @returns {HTMLTextAreaElement | null} */
const field = () => document.querySelector("#box textarea");

function put() {
  if (left()) return;
  const text = field()?.value ?? "";
  const said = [...document.querySelectorAll(".turn.user .said")].at(-1)?.textContent;
  // A message whose confirmation was lost with the line is said already.
  if (text && text !== said) sessionStorage.setItem(DRAFT_KEY, text);
  else sessionStorage.removeItem(DRAFT_KEY);
}

/** Wait for Gradio to have drawn the composer, and put the words back. */
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
  addEventListener("pagehide", put);
  addEventListener("login-over", put);
  addEventListener("visibilitychange", () => document.hidden && put());
}
