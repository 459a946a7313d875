// Sends the page's actions to the server, and passes each part of a response to its view; it does not know the parts.

import { t } from "./i18n.js";
import { loginExpired } from "./login.js";
import { settingsForRequest } from "./settings.js";

const CONVERSATION = "magistral-ui-conversation"; // in sessionStorage, see transcript.js
// Background actions: if one fails, the next click will show it.
const UNASKED = new Set([
  "history/refresh",
  "turns/ended",
  "turns/more",
  "composer/weigh",
  "composer/look",
  "model/poll",
  "model/ready",
  "model/compose",
  "models/list",
]);
/** @import { Composed, Place } from "./types.js" */

/** @type {Record<string, (value: any, action?: string) => void>} */
const handlers = {};
/** @type {Map<string, (() => unknown) | null>} */
const open = new Map(); // running action → the latest request that waits for it
/** @type {Place} */
let place = {}; // as the server last returned it
let asked = 0;
let lost = false; // whether the page says that the connection is lost

/**
 * Call `take` with the `part` of each response, and with the action that was requested.
 * @param {string} part
 * @param {(value: any, action?: string) => void} take
 */
export function onAnswer(part, take) {
  handlers[part] = take;
}

/**
 * Set the place: at first the one stored in the browser, then those in responses.
 * @param {Place | null} value
 */
export function setPlace(value) {
  place = value ?? {};
}

/**
 * Request `action` with its `data`, and with the composer's `message` if it needs that; resolves to true once there is a
 * answer. A tab stays with the conversation that it shows, even if a late answer has brought the place of another one. By the number
 * `asked`, the transcript knows which request an answer belongs to.
 * @param {string} action
 * @param {object} [data]
 * @param {Composed} [message]
 */
export async function ask(action, data = {}, message = null) {
  const conversation = sessionStorage.getItem(CONVERSATION);
  asked += 1;
  const here = { ...place, ...(conversation && { conversation }), asked };
  const body = JSON.stringify({ place: here, settings: settingsForRequest(), data, ...(message && { message }) });
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`magistral/act/${action}`, { method: "POST", headers, body }).catch(() => null);
  if (response?.status === 401) return void loginExpired();
  const answer = await response?.json().catch(() => ({}));
  if (!response?.ok) {
    if (UNASKED.has(action)) return false;
    lost = !response;
    handlers.alert(answer?.error ?? t(lost ? "line_lost" : "error_unavailable"), action);
    return false;
  }
  if (lost) handlers.alert(null);
  lost = false;
  for (const [part, value] of Object.entries(answer)) handlers[part]?.(value, action);
  return true;
}

/**
 * The same if only the latest response matters: while one request is running, only the last of further ones is sent.
 * @param {string} action
 * @param {() => unknown} [question]
 */
export async function askLatest(action, question = () => ask(action)) {
  if (open.has(action)) return void open.set(action, question);
  open.set(action, null);
  try {
    await question();
  } finally {
    const next = open.get(action);
    open.delete(action);
    if (next) askLatest(action, next);
  }
}
