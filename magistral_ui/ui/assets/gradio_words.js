// Puts our words in the place of those that Gradio's components have in English only: the composer's names, and its messages.

import { t } from "./strings.js";

const NAMES = {
  "Multimedia input field": "composer_heading",
  "Uploaded files": "composer_pictures",
  "File thumbnail": "composer_picture",
  "Upload a file": "composer_add",
  "File upload": "composer_add",
  "Click to upload or drop files": "composer_add",
  "Remove file": "composer_remove",
  "Uploading": "composer_uploading",
  "Submit": "composer_send",
  "Stop": "composer_stop",
  "Close": "page_close",
};
const MESSAGES = [
  ["Connection Lost", "line_lost_heading"],
  ["Connection to the server was lost", "line_lost"],
  ["Waiting for file(s) to finish uploading", "upload_waiting"],
  ["File(s) exceed the maximum allowed size", "upload_too_large"],
  ["Invalid file type", "upload_wrong_type"],
  ["This application is currently busy", "error_unavailable"],
  ["Error", "toast_error"],
  ["Warning", "toast_warning"],
  ["Info", "toast_info"],
];

/** Wait for Gradio to have drawn the composer; from then on whatever it draws there, and its messages, are in our words. */
export function setUpGradioWords() {
  const box = document.getElementById("box");
  const messages = document.querySelector(".toast-wrap");
  if (!box || !messages) {
    requestAnimationFrame(setUpGradioWords);
    return;
  }
  follow(box, () => rename(box));
  follow(messages, () => {
    rename(messages);
    messages.querySelectorAll(".toast-title, .toast-message-text").forEach(reword);
  });
}

function follow(element, change) {
  change();
  new MutationObserver(change).observe(element, { childList: true, subtree: true, characterData: true });
}

function rename(element) {
  for (const each of element.querySelectorAll("[aria-label]")) {
    const key = NAMES[each.getAttribute("aria-label")];
    if (!key) continue;
    each.setAttribute("aria-label", t(key));
    if (each.tagName === "BUTTON") each.title = t(key);
  }
}

function reword(element) {
  const told = element.firstChild?.textContent.trim() ?? "";
  const found = MESSAGES.find(([english]) => told.startsWith(english));
  if (found && told !== t(found[1])) element.firstChild.textContent = t(found[1]);
}
