// The types of what entry.mjs exports; build.mjs copies this beside the bundle.
export { default as DOMPurify } from "dompurify";
export { default as hljs } from "highlight.js/lib/core";
export { default as katex } from "katex";
export { default as MarkdownIt } from "markdown-it";
export const footnotes: import("markdown-it").PluginSimple;
