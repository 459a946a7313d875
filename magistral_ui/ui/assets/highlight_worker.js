// Colours code beside the page, which ends this where it takes too long; see highlight.js.

// The renderers come in one file, of which a part wants to hear of what is copied; a worker has no document to hear of.
Object.assign(self, { document: { compatMode: "CSS1Compat", addEventListener() {} } });
const renderers = import("./vendor/renderers.js");

self.onmessage = async ({ data: { language, code } }) => {
  const { hljs } = await renderers;
  self.postMessage(hljs.highlight(code, { language, ignoreIllegals: true }).value);
};
