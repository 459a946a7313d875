// Colours code once it is drawn, in a worker with a deadline: highlight.js may take the square of the length of a line.

import { hljs } from "./vendor/renderers.js";

const LONGEST = 60_000; // characters
const AT_ONCE = 1_000_000; // squares of characters, which may be coloured without the worker each time that something is drawn
const MOST_PARTS = 8_000; // coloured words and marks of one block
const DEADLINE = 3_000; // ms for one block, which usually takes some
const MOST_ENDED = 3; // workers that were ended; then code stays as it is
const MOST_KEPT = 100; // blocks whose colours are kept, because the same is drawn again
const PART = /<span class="([\w -]+)">|(<\/span>)|([^<]+)/g;
/** @type {Record<string, string>} */
const SIGNS = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

/** @type {Map<string, DocumentFragment>} */
const kept = new Map(); // what was coloured, as nodes
/** @type {Map<string, { language: string, code: string, elements: Element[] }>} */
const waiting = new Map(); // what is to be, by the same key, with the elements that wait for it
/** @type {Worker | null} */
let worker = null;
let ended = 0;
let room = 0; // what is left of AT_ONCE

/** Something else is drawn. */
export function begin() {
  room = AT_ONCE;
}

/**
 * Give `element`, which shows `code`, its colours, now or a little later.
 * @param {Element} element
 * @param {string} code
 * @param {string} language
 */
export function highlight(element, code, language) {
  if (!hljs.getLanguage(language) || code.length > LONGEST || ended >= MOST_ENDED) return;
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

/** Let the worker take the first that waits. */
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
    if (ended >= MOST_ENDED) waiting.clear();
    finish(null);
  };
  const deadline = setTimeout(giveUp, DEADLINE);
  worker ??= new Worker(new URL("./highlight_worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => finish(data);
  worker.onerror = giveUp;
  worker.postMessage({ language, code });
}

/**
 * Put `nodes` into `elements`, and keep them.
 * @param {string} key
 * @param {DocumentFragment | null} nodes
 * @param {Element[]} elements
 */
function keep(key, nodes, elements) {
  if (!nodes) return;
  for (const element of elements) element.replaceChildren(nodes.cloneNode(true));
  if (kept.size >= MOST_KEPT) kept.clear();
  kept.set(key, nodes);
}

/**
 * highlight.js writes spans with a class and escaped text, and nothing else gets here; null where they are too many.
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
      if (parts > MOST_PARTS) return null;
      const span = document.createElement("span");
      span.className = name;
      open.at(-1)?.append(span);
      open.push(span);
    } else if (closes) open.pop();
    else open.at(-1)?.append(text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (sign) => SIGNS[sign]));
  }
  return root;
}
