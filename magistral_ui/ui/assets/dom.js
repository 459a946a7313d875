// Makes elements without ever reading text as HTML.

/** An element; `options` are properties, except `class`, `data` and `aria-*`/`role`, which are attributes. */
export function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name.startsWith("aria-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Put `text` on the clipboard, also on pages without https, where the modern way is missing. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const box = make("textarea", { value: text, class: "visually-hidden" });
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
}

/** Show `done` on `button` for a moment, then its own label again. */
export function confirmOn(button, done) {
  const label = button.textContent;
  if (label === done) return;
  button.textContent = done;
  setTimeout(() => (button.textContent = label), 1500);
}
