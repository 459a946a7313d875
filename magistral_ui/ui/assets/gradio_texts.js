// Translates the texts that Gradio has in English only: the composer's labels, and Gradio's messages.

import { uploads } from "./attachments.js";
import { t } from "./i18n.js";

/** @type {Record<string, string>} */
const NAMES = {
  "Multimedia input field": "composer_heading",
  "Uploaded files": "composer_pictures",
  "File thumbnail": "composer_picture",
  "Upload a file": "composer_add",
  "File upload": "composer_add",
  "Click to upload or drop files": "composer_add",
  "Remove file": "composer_remove",
  Uploading: "composer_uploading",
  Submit: "composer_send",
  Stop: "composer_stop",
  Close: "page_close",
};
// Gradio's own messages; those of the app are in the visitor's language already.
/** @type {[string | RegExp, string][]} */
const MESSAGES = [
  ["Connection Lost", "line_lost_heading"],
  ["Connection to the server was lost", "line_lost"],
  ["Connection errored out", "line_lost"],
  ["Failed to fetch", "line_lost"],
  ["NetworkError", "line_lost"],
  ["Load failed", "line_lost"],
  ["The network connection was lost", "line_lost"],
  ["Unexpected token", "error_unavailable"],
  ["JSON.parse", "error_unavailable"],
  ["Could not resolve app config", "line_lost"],
  ["Waiting for file(s) to finish uploading", "upload_waiting"],
  ["File(s) exceed the maximum allowed size", "upload_too_large"],
  ["Invalid file type", "upload_wrong_type"],
  [/^\d+ file\(s\) were rejected/, "upload_wrong_type"],
  ["Error uploading file", "upload_failed"],
  ["This application is currently busy", "error_unavailable"],
  ["Too many requests", "error_unavailable"],
  ["Not authorized", "error_login_needed"],
  ["Could not access this app", "error_login_needed"],
  ["An Unexpected Error Occurred", "error_unexpected"],
  ["Could not get API info", "error_unexpected"],
  ["No API information", "error_unexpected"],
  ["Method not implemented", "error_unexpected"],
  [/^Error$/, "toast_error"],
  [/^Warning$/, "toast_warning"],
  [/^Info$/, "toast_info"],
];

/** Wait until Gradio has rendered the composer; from then on, translate its labels and Gradio's messages. */
export function setUpGradioTexts() {
  const box = document.getElementById("box");
  const messages = document.querySelector(".toast-wrap");
  if (!box || !messages) {
    requestAnimationFrame(setUpGradioTexts);
    return;
  }
  follow(box, () => rename(box));
  follow(messages, () => {
    rename(messages);
    messages.querySelectorAll(".toast-title, .toast-message-text").forEach(reword);
  });
}

/**
 * @param {Element} element
 * @param {() => void} change
 */
function follow(element, change) {
  change();
  new MutationObserver(change).observe(element, { childList: true, subtree: true, characterData: true });
}

/** @param {Element} element */
function rename(element) {
  for (const each of element.querySelectorAll("[aria-label]")) {
    const key = NAMES[each.getAttribute("aria-label") ?? ""];
    if (!key) continue;
    each.setAttribute("aria-label", t(key));
    if (each instanceof HTMLButtonElement) each.title = t(key);
  }
}

/** @param {Element} element */
function reword(element) {
  const { firstChild } = element;
  if (!firstChild) return;
  const shown = firstChild.textContent?.trim() ?? "";
  const ours = reworded(shown);
  if (ours && shown !== ours) firstChild.textContent = ours;
}

/** @param {string} shown */
function reworded(shown) {
  const refused = shown.match(/^HTTP \d+: ([\s\S]*)$/); // an upload, with the app's own message if the app refused it
  if (refused) return sentenceIn(refused[1]) ?? t("upload_failed");
  const found = MESSAGES.find(([english]) =>
    english instanceof RegExp ? english.test(shown) : shown.startsWith(english),
  );
  return found && t(found[1] === "line_lost" && uploads() ? "upload_failed" : found[1]);
}

/**
 * @param {string} body
 * @returns {string | undefined}
 */
function sentenceIn(body) {
  try {
    return JSON.parse(body).error;
  } catch {
    return undefined; // a proxy's error page
  }
}
