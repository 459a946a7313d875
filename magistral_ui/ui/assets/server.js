// Asks the server for what the page does, and hands each part of its answer to whoever shows it; it does not know the parts.

import { t } from "./i18n.js";
import { over } from "./login.js";
import { sent } from "./settings.js";

const CONVERSATION = "magistral-ui-conversation"; // in sessionStorage, see transcript.js
// Asked by the page itself: that no answer came is told by what somebody does next.
const UNASKED = new Set([
  "history/refresh",
  "turns/ended",
  "turns/more",
  "composer/weigh",
  "composer/look",
  "model/poll",
  "model/ready",
  "model/compose",
]);
/** @import { Composed, Place } from "./types.js" */

/** @type {Record<string, (value: any) => void>} */
const takers = {};
/** @type {Map<string, (() => unknown) | null>} */
const open = new Map(); // action of which only the last question counts → whether it is to be asked once more
/** @type {Place} */
let place = {}; // as the server told last
let asked = 0;

/**
 * Have `take` called with each answer's `part`.
 * @param {string} part
 * @param {(value: any) => void} take
 */
export function onAnswer(part, take) {
  takers[part] = take;
}

/**
 * The place as the browser has kept it from the last time, and then as answers tell it.
 * @param {Place | null} value
 */
export function setPlace(value) {
  place = value ?? {};
}

/**
 * Ask for `action`, with what is peculiar to it, and with the `message` in the composer where that matters; true where there was an
 * answer. A tab stays with the conversation that it shows, whatever place an answer that came late has left, which is that of the
 * tab used last. The number tells which question an answer belongs to.
 * @param {string} action
 * @param {object} [data]
 * @param {Composed} [message]
 */
export async function ask(action, data = {}, message = null) {
  const conversation = sessionStorage.getItem(CONVERSATION);
  asked += 1;
  const here = { ...place, ...(conversation && { conversation }), asked };
  const body = JSON.stringify({ place: here, settings: sent(), data, ...(message && { message }) });
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`magistral/act/${action}`, { method: "POST", headers, body }).catch(() => null);
  if (response?.status === 401) return void over();
  const answer = await response?.json().catch(() => ({}));
  if (!response?.ok) {
    if (!UNASKED.has(action)) takers.alert(answer?.error ?? t(response ? "error_unavailable" : "line_lost"));
    return false;
  }
  for (const [part, value] of Object.entries(answer)) takers[part]?.(value);
  return true;
}

/**
 * The same, where an answer from before is worth nothing: while one is awaited, only the last of further questions is put.
 * @param {string} action
 * @param {() => unknown} [question]
 */
export async function askLatest(action, question = () => ask(action)) {
  if (open.has(action)) return void open.set(action, question);
  open.set(action, null);
  await question();
  const next = open.get(action);
  open.delete(action);
  if (next) askLatest(action, next);
}
