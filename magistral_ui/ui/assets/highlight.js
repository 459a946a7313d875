// Colours code once it is drawn, in a worker with a deadline: highlight.js may take the square of the length of a line.

import { hljs } from "./vendor/renderers.js";

const LONGEST = 60_000; // characters
const AT_ONCE = 1_000_000; // squares of characters, which may be coloured without the worker each time that something is drawn
const MOST_PARTS = 8_000; // coloured words and marks of one block
const DEADLINE = 3_000; // ms for one block, which usually takes some
const MOST_ENDED = 3; // workers that were ended; then code stays as it is
const MOST_KEPT = 100; // blocks whose colours are kept, because the same is drawn again
const PART = /<span class="([\w -]+)">|(<\/span>)|([^<]+)/g;
const SIGNS = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

const kept = new Map(); // what was coloured, as nodes
const waiting = new Map(); // what is to be, by the same key, with the elements that wait for it
let worker = null;
let ended = 0;
let room = 0; // what is left of AT_ONCE

/** Something else is drawn. */
export function begin() {
  room = AT_ONCE;
}

/** Give `element`, which shows `code`, its colours, now or a little later. */
export function highlight(element, code, language) {
  if (!hljs.getLanguage(language) || code.length > LONGEST || ended >= MOST_ENDED) return;
  const key = `${language}\n${code}`;
  if (kept.has(key)) element.replaceChildren(kept.get(key).cloneNode(true));
  else if (code.length ** 2 <= room) {
    room -= code.length ** 2;
    keep(key, nodesOf(hljs.highlight(code, { language, ignoreIllegals: true }).value), [element]);
  } else if (waiting.has(key)) waiting.get(key).elements.push(element);
  else {
    waiting.set(key, { language, code, elements: [element] });
    if (waiting.size === 1) next();
  }
}

/** Let the worker take the first that waits. */
function next() {
  if (!waiting.size) return;
  const [[key, { language, code, elements }]] = waiting;
  const finish = (html) => {
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

/** Put `nodes` into `elements`, and keep them. */
function keep(key, nodes, elements) {
  if (!nodes) return;
  for (const element of elements) element.replaceChildren(nodes.cloneNode(true));
  if (kept.size >= MOST_KEPT) kept.clear();
  kept.set(key, nodes);
}

/** highlight.js writes spans with a class and escaped text, and nothing else gets here; null where they are too many. */
function nodesOf(html) {
  const root = document.createDocumentFragment();
  const open = [root];
  let parts = 0;
  for (const [, name, closes, text] of html.matchAll(PART)) {
    if (name) {
      parts += 1;
      if (parts > MOST_PARTS) return null;
      const span = document.createElement("span");
      span.className = name;
      open.at(-1).append(span);
      open.push(span);
    } else if (closes) open.pop();
    else open.at(-1).append(text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (sign) => SIGNS[sign]));
  }
  return root;
}
