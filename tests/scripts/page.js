// The page as its scripts find it: a document with the composer, and the texts of one language. Import it before them.

import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

const LANGUAGE = process.env.PAGE_LANGUAGE ?? "en";
const BODY = `
  <div id="history"></div>
  <div id="conversation"><div id="turns"></div></div>
  <div id="composer"><div id="model-banner"></div><div id="box"><textarea></textarea></div></div>`;
const NAMES = [
  ...["window", "document", "localStorage", "sessionStorage", "location", "Node", "Element", "HTMLElement"],
  ...["HTMLButtonElement", "Event", "CustomEvent", "KeyboardEvent", "MutationObserver", "DOMParser"],
  ...["getComputedStyle", "addEventListener", "dispatchEvent"],
];

const texts = readFileSync(new URL(`../../magistral_ui/i18n/locales/${LANGUAGE}.json`, import.meta.url), "utf8");
const script = `export const language = ${JSON.stringify(LANGUAGE)}; export const texts = ${texts};`;
const direction = LANGUAGE === "ar" || LANGUAGE === "fa" ? "rtl" : "ltr";
const { window } = new JSDOM(
  `<!doctype html><html dir="${direction}" data-texts="data:text/javascript;charset=utf-8,${encodeURIComponent(script)}"><body>${BODY}`,
  { url: "http://127.0.0.1/" },
);
for (const name of NAMES) {
  const value = name === "window" ? window : window[name];
  const own = typeof value === "function" && /^[a-z]/.test(name) ? value.bind(window) : value;
  Object.defineProperty(globalThis, name, { value: own, configurable: true, writable: true });
}
globalThis.requestAnimationFrame = (job) => setTimeout(job, 16);
// What jsdom lacks and nothing here is about.
globalThis.ResizeObserver = window.ResizeObserver = class {
  observe() {}
};
globalThis.IntersectionObserver = class {
  observe() {}
  unobserve() {}
  disconnect() {}
};
globalThis.matchMedia = window.matchMedia = () => ({ matches: false, addEventListener() {} });

/** Let whatever waits for a turn of the event loop have it, `times` times. */
export async function settled(times = 1) {
  for (; times > 0; times -= 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Numbers that look random and are the same in every run, from 0 to below `end`. */
export function random(seed) {
  let state = seed;
  return (end) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
}

/** `text` in pieces, as a stream may bring it. */
export function pieces(text, seed, longest = 12) {
  const next = random(seed);
  const found = [];
  for (let at = 0; at < text.length; ) {
    const end = at + 1 + next(longest);
    found.push(text.slice(at, end));
    at = end;
  }
  return found;
}
