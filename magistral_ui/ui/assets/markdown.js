// Renders a model's Markdown as safe HTML: allowed tags only, no attributes, no images, and only web and mail links.

import { bounds } from "./bounds.js";
import { emphasis } from "./emphasis.js";
import { directionSeen, gfm, isFollowed } from "./gfm.js";
import { begin, highlight } from "./highlight.js";
import { htmlTags } from "./html_tags.js";
import { t } from "./i18n.js";
import { environments } from "./latex_environments.js";
import { math } from "./math.js";
import { DOMPurify, katex, MarkdownIt } from "./vendor/renderers.js";

/** @import { Token } from "./types.js" */

const MAX_FORMULA_LENGTH = 5_000; // characters; longer ones are shown as text
const MAX_CACHED_FORMULAS = 1_500; // as many as one block of an ordinary answer may contain
/**
 * Cached nodes of rendered formulas, because the same ones recur, and the open block is rendered repeatedly while it grows.
 * @type {Map<string, DocumentFragment>}
 */
const formulas = new Map();
/** @type {string[]} */
let drawing = []; // the formulas of the current rendering, in order
/** @type {Set<string>} */
let begun = new Set(); // those that are not cached
/** @type {{ content: string, language: string }[]} */
let codes = []; // the code to highlight, in order

const md = new MarkdownIt({ html: false, linkify: true, typographer: false, breaks: true });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
emphasis(md);
math(md, formula);
htmlTags(md);
gfm(md);
bounds(md);
// Links that gfm() would not allow need not be detected.
for (const schema of ["//", "ftp:"]) md.linkify.add(schema, null);

const { escapeHtml } = md.utils;

/**
 * A placeholder for a formula; the first one of its kind is rendered in it, and sanitized with everything else.
 * @param {string} content
 * @param {boolean} display
 */
function formula(content, display) {
  const key = `${display}${content}`;
  const isNew = !formulas.has(key) && !begun.has(key);
  if (isNew) begun.add(key);
  drawing.push(key);
  return `<span class="formula">${isNew ? renderFormula(content, display) : ""}</span>`;
}

/**
 * Replace the placeholders in `fragment` with the formulas.
 * @param {DocumentFragment} fragment
 */
function putFormulas(fragment) {
  fragment.querySelectorAll("span.formula").forEach((place, index) => {
    const key = drawing[index];
    if (place.firstChild) {
      const nodes = document.createDocumentFragment();
      nodes.append(...place.childNodes);
      formulas.set(key, nodes);
    }
    place.replaceWith(formulas.get(key)?.cloneNode(true) ?? "");
  });
  return fragment;
}

/**
 * The HTML of a formula: as KaTeX renders it, if need be with only its inline environments, or else its source as code.
 * @param {string} content
 * @param {boolean} display
 */
function renderFormula(content, display) {
  if (content.length > MAX_FORMULA_LENGTH) return `<code>${escapeHtml(content)}</code>`;
  /** @type {import("katex").KatexOptions} */
  const options = { displayMode: display, strict: "ignore", trust: false, maxExpand: 1000, maxSize: 30 };
  const first = environments(content, !display);
  /** @type {[string, boolean][]} */
  const attempts = [
    [first, first !== content || content.includes("\\begin")],
    [environments(content, true), false],
  ];
  for (const [latex, throwOnError] of attempts) {
    try {
      // A space, which LaTeX skips, so that a search of the page for unrendered environments does not find the source.
      return katex.renderToString(latex, { ...options, throwOnError }).replaceAll("\\begin{", "\\begin {");
    } catch {
      // KaTeX throws on internal errors whatever throwOnError says.
    }
  }
  return `<code>${escapeHtml(content)}</code>`;
}

/**
 * Highlight the code in `fragment`.
 * @param {DocumentFragment} fragment
 */
function colour(fragment) {
  fragment.querySelectorAll("code.coloured").forEach((element, index) => {
    element.removeAttribute("class");
    highlight(element, codes[index].content, codes[index].language);
  });
  return fragment;
}

// The page has its own h1 and h2. Below them, a model's headings are all of one level, because it may begin with any and
// skip some, which would mislead screen reader users who navigate by headings; the class sets their size.
md.core.ruler.push("headings", (state) => {
  for (const token of state.tokens) {
    if (token.type === "heading_open") token.attrJoin("class", `level-${token.tag[1]}`);
    if (token.type === "heading_open" || token.type === "heading_close") token.tag = "h3";
  }
});

md.renderer.rules.link_open = (tokens, index, options, _, self) => {
  tokens[index].attrSet("target", "_blank");
  tokens[index].attrSet("rel", "noopener noreferrer nofollow");
  return self.renderToken(tokens, index, options);
};

// An image could be fetched from anywhere and leak the conversation: show where it points instead.
md.renderer.rules.image = (tokens, index) => {
  const url = String(tokens[index].attrGet("src") ?? "");
  const text = escapeHtml(t("turn_image", { text: tokens[index].content || url }));
  if (!isFollowed(url)) return text;
  return `<a href="${escapeHtml(url)}" target="_blank" rel="noopener noreferrer nofollow">${text}</a>`;
};

md.renderer.rules.table_open = (tokens, index) =>
  `<div class="table"${tokens[index].meta?.direction ? ` dir="${tokens[index].meta.direction}"` : ""} tabindex="0" role="group" aria-label="${escapeHtml(t("turn_table"))}"><table>`;
md.renderer.rules.table_close = () => "</table></div>";

md.renderer.rules.fence = md.renderer.rules.code_block = (tokens, index) => {
  const { content, info, meta } = tokens[index];
  const language = info.trim().split(/\s+/)[0].slice(0, 30);
  const isColoured = language && !meta?.open;
  if (isColoured) codes.push({ content, language });
  const name = escapeHtml(language ? t("turn_code_language", { language }) : t("turn_code"));
  return (
    `<div class="code"><div class="code-head"><span>${escapeHtml(language || t("turn_code"))}</span>` +
    `<button type="button" class="quiet confirming" data-act="copy-code"><span>${escapeHtml(t("turn_copy"))}</span>` +
    `<span>${escapeHtml(t("turn_copied"))}</span></button></div>` +
    `<pre tabindex="0" role="group" aria-label="${name}"><code dir="ltr"${isColoured ? ' class="coloured"' : ""}>${escapeHtml(content)}</code></pre></div>`
  );
};

const CLEAN = {
  USE_PROFILES: { html: true, mathMl: true, svg: true },
  ADD_TAGS: ["semantics", "annotation"],
  ADD_ATTR: ["target"],
  FORBID_TAGS: [
    "img",
    "image",
    "picture",
    "video",
    "audio",
    "source",
    "track",
    "iframe",
    "object",
    "embed",
    "style",
    "link",
    "form",
    "input",
    "textarea",
    "select",
    "option",
    "use",
    "foreignObject",
    "animate",
    "set",
  ],
  RETURN_DOM_FRAGMENT: /** @type {const} */ (true),
};

export { directionSeen };

/**
 * The tokens of `text`; `growing` says that more of it will follow.
 * @param {string} text
 * @param {boolean} growing
 * @returns {Token[]}
 */
export const parse = (text, growing) => md.parse(text, { growing });

/**
 * Nodes for `tokens`; `name` tells the footnotes of one answer from those of others. The renderer escapes everything already;
 * DOMPurify is the second line of defence.
 * @param {Token[]} tokens
 * @param {string} name
 * @returns {DocumentFragment}
 */
export function render(tokens, name = "") {
  if (formulas.size > MAX_CACHED_FORMULAS) formulas.clear();
  drawing = [];
  begun = new Set();
  codes = [];
  begin();
  const html = md.renderer.render(tokens, md.options, { docId: name });
  return colour(putFormulas(DOMPurify.sanitize(html, CLEAN)));
}
