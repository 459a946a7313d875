// Sends the message, or holds it back and says why: it is empty, does not fit, or waits for its images or its token count.

import { make } from "./dom.js";

/** @import { Obstacle } from "./types.js" */

const DEBOUNCE_MS = 300;
const EMPTIED = 120; // frames after a response in which the composer is emptied
/** @type {(() => Obstacle | null)[]} */
const checks = [];
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
const held = make("p", { class: "held visually-hidden", role: "status" }); // says why the message waits
let wanted = false; // whether to send the message as soon as nothing holds it back
/** @type {string | null} */
let sent = null; // the text that is being sent
/** @type {string | null} */
let typed = null; // what has been typed over it meanwhile

/**
 * The text field.
 * @returns {HTMLTextAreaElement | null}
 */
export const field = () => document.querySelector("#box textarea");
/** The attached images, as Gradio renders them. */
export const attached = () => [...document.querySelectorAll("#box .thumbnail-wrapper")];
/** Whether there is nothing to send. */
export const empty = () => !field()?.value.trim() && !attached().length;

/**
 * Show `element`, a notice, above the box.
 * @template {HTMLElement} E
 * @param {E} element
 */
export function above(element) {
  const box = document.getElementById("box");
  [...(document.getElementById("composer")?.children ?? [])].find((each) => each.contains(box))?.before(element);
  return element;
}

/**
 * `check()` returns what holds the message back, or null: `{reason}`, with `waits` if that will pass, and `hurry`, which is
 * called once somebody wants to send it.
 * @param {() => Obstacle | null} check
 */
export function hold(check) {
  checks.push(check);
}

/** Run the checks again: update the button, and send a message that was waiting. */
export function look() {
  const obstacle = found();
  /** @type {HTMLButtonElement | null} */
  const button = document.querySelector("#box .submit-button");
  const shut = Boolean(obstacle && !obstacle.waits);
  if (button && button.disabled !== shut && !field()?.disabled) {
    button.disabled = shut;
    button.title = shut ? (obstacle?.reason ?? "") : "";
  }
  if (wanted && !obstacle) {
    wait(null);
    if (!empty()) button?.click();
  } else if (wanted && shut) wait(null);
}

/** @returns {Obstacle | null} */
function found() {
  const obstacles = checks.map((check) => check()).filter((each) => each !== null);
  return obstacles.find(({ waits }) => !waits) ?? obstacles[0] ?? null;
}

/** Whether the message can be sent now; if not, say why. */
function mayGo() {
  if (empty()) return false;
  if (document.body.classList.contains("answering")) return true; // the server refuses it, and the text stays
  const obstacle = found();
  wait(obstacle);
  obstacle?.hurry?.();
  if (!obstacle) send();
  return !obstacle;
}

function send() {
  [sent, typed] = [field()?.value ?? "", null];
  dispatchEvent(new Event("sending"));
}

/**
 * The server has accepted the message (`taken`) or not. If so, Gradio empties the composer, but not of newly typed text.
 * @param {boolean} taken
 * @param {number} frames
 */
export function answered(taken, frames = EMPTIED) {
  const box = field();
  if (sent === null || !box) return;
  if (taken && box.value && frames) return void requestAnimationFrame(() => answered(taken, frames - 1));
  const rest = typed?.startsWith(sent) ? typed.slice(sent.length).trimStart() : typed;
  [sent, typed] = [null, null];
  if (rest && !box.value) write(rest);
}

/**
 * Put `text` into the composer as if it had been typed.
 * @param {string} text
 */
export function write(text) {
  const box = field();
  if (!box) return;
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

/**
 * Reasons that pass quickly are not announced; others have a notice of their own, and are announced to screen readers.
 * @param {Obstacle | null} obstacle
 */
function wait(obstacle) {
  wanted = Boolean(obstacle?.waits);
  clearTimeout(timer);
  if (obstacle?.waits) timer = setTimeout(() => tell(obstacle.reason, true), DEBOUNCE_MS);
  else tell(obstacle?.reason ?? "", false);
}

/**
 * @param {string} reason
 * @param {boolean} seen
 */
function tell(reason, seen) {
  held.textContent = reason;
  held.classList.toggle("visually-hidden", !seen);
}

/** Whether `event` is about an element of `selector`, or within one. */
export const within = (/** @type {Event} */ { target }, /** @type {string} */ selector) =>
  target instanceof Element && target.closest(selector) !== null;

/** Hold back Enter (the keyboard shortcut) and clicks on Send; for an empty message, Gradio would overwrite what is typed. */
export function setUpComposer() {
  const keep = (/** @type {Event} */ event) => {
    if (mayGo()) return;
    event.preventDefault();
    event.stopPropagation();
  };
  const key = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && within(event, "#box textarea")) keep(event);
  };
  addEventListener("keydown", key, { capture: true });
  addEventListener("click", (event) => within(event, "#box .submit-button") && keep(event), { capture: true });
  prepare();
}

/** Wait until Gradio has rendered the composer, whose button it re-renders now and then. */
function prepare() {
  const composer = document.getElementById("composer");
  const box = document.getElementById("box");
  if (!box || !composer) return void requestAnimationFrame(prepare);
  above(held);
  composer.addEventListener("input", () => {
    wait(null);
    if (sent !== null) typed = field()?.value ?? null;
  });
  new MutationObserver(look).observe(composer, {
    childList: true,
    subtree: true,
    attributes: true,
    attributeFilter: ["disabled"],
  });
}
