// Turns what a model wrote into harmless HTML: only tags of an allow-list, no attributes, no pictures, no links but web and mail.

import { DOMPurify, MarkdownIt, hljs, katex } from "./vendor/renderers.js";
import { emphasis } from "./emphasis.js";
import { environments } from "./environments.js";
import { gfm, isFollowed } from "./gfm.js";
import { htmlTags } from "./html_tags.js";
import { math } from "./math.js";
import { t } from "./strings.js";

const LONGEST_FORMULA = 20_000; // characters; longer ones are shown as text
const LONGEST_HIGHLIGHT = 60_000;
const formulas = new Map(); // rendered ones, because the open block is rendered again and again while it grows

const md = new MarkdownIt({ html: false, linkify: true, typographer: false, breaks: true });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
emphasis(md);
math(md, formula);
htmlTags(md);
gfm(md);

const { escapeHtml } = md.utils;

function formula(content, display) {
  const key = `${display}${content}`;
  let html = formulas.get(key);
  if (html !== undefined) return html;
  if (content.length > LONGEST_FORMULA) html = `<code>${escapeHtml(content)}</code>`;
  else html = drawn(content, display);
  if (formulas.size > 300) formulas.clear();
  formulas.set(key, html);
  return html;
}

/** What KaTeX makes of a formula; where it may not be a display, or holds more than it may, in the words for within a line. */
function drawn(content, display) {
  const options = { displayMode: display, strict: "ignore", trust: false, maxExpand: 1000, maxSize: 30 };
  const first = environments(content, !display);
  for (const [latex, throwOnError] of [[first, first !== content || content.includes("\\begin")], [environments(content, true), false]]) {
    try {
      // A space, which LaTeX skips: whoever looks through the page for an environment that was not drawn finds none in its source.
      return katex.renderToString(latex, { ...options, throwOnError }).replaceAll("\\begin{", "\\begin {");
    } catch {
      // KaTeX throws on its own errors whatever throwOnError says.
    }
  }
  return `<code>${escapeHtml(content)}</code>`;
}

// The page has its own h1 and h2. Below them a model's headings are all of one level, because it may begin with any and
// skip some, which would mislead whoever walks the page by its headings; how large they look is told by the class.
md.core.ruler.push("headings", (state) => {
  for (const token of state.tokens) {
    if (token.type === "heading_open") token.attrJoin("class", `level-${token.tag[1]}`);
    if (token.type === "heading_open" || token.type === "heading_close") token.tag = "h3";
  }
});

md.renderer.rules.link_open = (tokens, index, options, env, self) => {
  tokens[index].attrSet("target", "_blank");
  tokens[index].attrSet("rel", "noopener noreferrer nofollow");
  return self.renderToken(tokens, index, options);
};

// A picture would be fetched from anywhere, and tell it what was said here: show where it points instead.
md.renderer.rules.image = (tokens, index) => {
  const url = tokens[index].attrGet("src") ?? "";
  const text = escapeHtml(t("turn_image", { text: tokens[index].content || url }));
  if (!isFollowed(url)) return text;
  return `<a href="${escapeHtml(url)}" target="_blank" rel="noopener noreferrer nofollow">${text}</a>`;
};

md.renderer.rules.table_open = (tokens, index) =>
  `<div class="table"${tokens[index].meta?.direction ? ` dir="${tokens[index].meta.direction}"` : ""} tabindex="0" role="region" aria-label="${escapeHtml(t("turn_table"))}"><table>`;
md.renderer.rules.table_close = () => "</table></div>";

md.renderer.rules.fence = md.renderer.rules.code_block = (tokens, index) => {
  const { content, info, meta } = tokens[index];
  const language = info.trim().split(/\s+/)[0].slice(0, 30);
  const known = language && hljs.getLanguage(language) && content.length < LONGEST_HIGHLIGHT && !meta?.open;
  const code = known ? hljs.highlight(content, { language, ignoreIllegals: true }).value : escapeHtml(content);
  const name = escapeHtml(language ? t("turn_code_language", { language }) : t("turn_code"));
  return (
    `<div class="code"><div class="code-head"><span>${escapeHtml(language || t("turn_code"))}</span>` +
    `<button type="button" class="quiet confirming" data-act="copy-code"><span>${escapeHtml(t("turn_copy"))}</span>` +
    `<span>${escapeHtml(t("turn_copied"))}</span></button></div>` +
    `<pre tabindex="0" role="region" aria-label="${name}"><code dir="ltr">${code}</code></pre></div>`
  );
};

const CLEAN = {
  USE_PROFILES: { html: true, mathMl: true, svg: true },
  ADD_TAGS: ["semantics", "annotation"],
  ADD_ATTR: ["target"],
  FORBID_TAGS: [
    "img", "image", "picture", "video", "audio", "source", "track", "iframe", "object", "embed", "style", "link", "form",
    "input", "textarea", "select", "option", "use", "foreignObject", "animate", "set",
  ],
  RETURN_DOM_FRAGMENT: true,
};

/** The tokens of `text`; `growing` says that more of it will come. */
export const parse = (text, growing) => md.parse(text, { growing });

/**
 * Nodes for `tokens`; `name` tells the footnotes of one answer from those of others. The renderer escapes everything already;
 * DOMPurify is the second wall.
 */
export const render = (tokens, name = "") => DOMPurify.sanitize(md.renderer.render(tokens, md.options, { docId: name }), CLEAN);
