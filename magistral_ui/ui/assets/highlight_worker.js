// The web worker that highlights code; the page terminates it if it takes too long, see highlight.js.

// The renderers are one file, of which a part listens to copy events of the document, which a worker does not have.
Object.assign(self, { document: { compatMode: "CSS1Compat", addEventListener() {} } });
const renderers = import("./vendor/renderers.js");

self.onmessage = async ({ data: { language, code } }) => {
  const { hljs } = await renderers;
  self.postMessage(hljs.highlight(code, { language, ignoreIllegals: true }).value);
};
