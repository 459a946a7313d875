// Syntax highlighting after rendering, in a worker with a deadline: highlight.js can take quadratic time for a long line.

import { hljs } from "./vendor/renderers.js";

const MAX_LENGTH = 60_000; // characters
const MAX_MAIN_THREAD_WORK = 1_000_000; // characters squared, that one rendering may highlight without the worker
const MAX_PARTS = 8_000; // highlighted parts of one block
const DEADLINE_MS = 3_000; // for one block, which usually takes a few
const MAX_TERMINATED = 3; // workers terminated by the deadline, after which nothing is highlighted any more
const MAX_CACHED = 100; // highlighted blocks to cache, because the same are rendered again
const PART = /<span class="([\w -]+)">|(<\/span>)|([^<]+)/g;
/** @type {Record<string, string>} */
const SIGNS = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

/** @type {Map<string, DocumentFragment>} */
const kept = new Map(); // highlighted code, as nodes
/** @type {Map<string, { language: string, code: string, elements: Element[] }>} */
const waiting = new Map(); // code to highlight, by the same key, with the elements that wait for it
/** @type {Worker | null} */
let worker = null;
let ended = 0;
let room = 0; // what is left of MAX_MAIN_THREAD_WORK

/** Begin another rendering. */
export function begin() {
  room = MAX_MAIN_THREAD_WORK;
}

/**
 * Highlight `element`, which shows `code`, now or a little later.
 * @param {Element} element
 * @param {string} code
 * @param {string} language
 */
export function highlight(element, code, language) {
  if (!hljs.getLanguage(language) || code.length > MAX_LENGTH || ended >= MAX_TERMINATED) return;
  const key = `${language}\n${code}`;
  const coloured = kept.get(key);
  const others = waiting.get(key);
  if (coloured) element.replaceChildren(coloured.cloneNode(true));
  else if (code.length ** 2 <= room) {
    room -= code.length ** 2;
    keep(key, nodesOf(hljs.highlight(code, { language, ignoreIllegals: true }).value), [element]);
  } else if (others) others.elements.push(element);
  else {
    waiting.set(key, { language, code, elements: [element] });
    if (waiting.size === 1) next();
  }
}

/** Give the worker the next code. */
function next() {
  if (!waiting.size) return;
  const [[key, { language, code, elements }]] = waiting;
  const finish = (/** @type {string | null} */ html) => {
    clearTimeout(deadline);
    if (html !== null) keep(key, nodesOf(html), elements);
    waiting.delete(key);
    next();
  };
  const giveUp = () => {
    worker?.terminate();
    worker = null;
    ended += 1;
    if (ended >= MAX_TERMINATED) waiting.clear();
    finish(null);
  };
  const deadline = setTimeout(giveUp, DEADLINE_MS);
  worker ??= new Worker(new URL("./highlight_worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => finish(data);
  worker.onerror = giveUp;
  worker.postMessage({ language, code });
}

/**
 * Put `nodes` into `elements`, and cache them.
 * @param {string} key
 * @param {DocumentFragment | null} nodes
 * @param {Element[]} elements
 */
function keep(key, nodes, elements) {
  if (!nodes) return;
  for (const element of elements) element.replaceChildren(nodes.cloneNode(true));
  if (kept.size >= MAX_CACHED) kept.clear();
  kept.set(key, nodes);
}

/**
 * Nodes for the output of highlight.js, which contains only spans with a class and escaped text; null if there are too many.
 * @param {string} html
 */
function nodesOf(html) {
  const root = document.createDocumentFragment();
  /** @type {(DocumentFragment | Element)[]} */
  const open = [root];
  let parts = 0;
  for (const [, name, closes, text] of html.matchAll(PART)) {
    if (name) {
      parts += 1;
      if (parts > MAX_PARTS) return null;
      const span = document.createElement("span");
      span.className = name;
      open.at(-1)?.append(span);
      open.push(span);
    } else if (closes) open.pop();
    else open.at(-1)?.append(text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (sign) => SIGNS[sign]));
  }
  return root;
}
