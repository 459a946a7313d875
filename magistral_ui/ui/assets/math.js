// Teaches markdown-it to read LaTeX: \( \), \[ \], $ $, $$ $$ and a bare \boxed{}. What is half open stays text.

const OPEN_LINES = 60; // a display that has not closed after so many lines was no display

/** The pair of marks that begins at `at`, or null. */
function marksAt(text, at) {
  if (text.startsWith("$$", at)) return { begin: "$$", end: "$$", display: true };
  if (text.startsWith("\\[", at)) return { begin: "\\[", end: "\\]", display: true };
  if (text.startsWith("\\(", at)) return { begin: "\\(", end: "\\)", display: false };
  if (text[at] === "$") return { begin: "$", end: "$", display: false };
  return null;
}

/** Where `end` closes what began before `from`: not escaped, not past `limit`; -1 if it does not. */
function closing(text, end, from, limit) {
  for (let at = from; (at = text.indexOf(end, at)) >= 0 && at < limit; at += 1) {
    let slashes = 0;
    while (text[at - 1 - slashes] === "\\") slashes += 1;
    if (slashes % 2 === 0) return at;
  }
  return -1;
}

/** The end of the braces that open at `at`, or -1. */
function closingBrace(text, at, limit) {
  let depth = 0;
  for (let i = at; i < limit; i += 1) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === "{") depth += 1;
    else if (text[i] === "}" && (depth -= 1) === 0) return i;
  }
  return -1;
}

function inlineMath(state, silent) {
  const { src, pos, posMax } = state;
  let from, to, next;
  let display = false;
  if (src.startsWith("\\boxed{", pos)) {
    const brace = closingBrace(src, pos + 6, posMax);
    if (brace < 0) return false;
    [from, to, next] = [pos, brace + 1, brace + 1];
  } else {
    const marks = marksAt(src, pos);
    if (!marks) return false;
    from = pos + marks.begin.length;
    to = closing(src, marks.end, from, posMax);
    if (to < 0 || !src.slice(from, to).trim()) return false;
    next = to + marks.end.length;
    display = marks.display;
    // Money is no mathematics: "$5 and $10" must stay as it is (the rule that pandoc uses).
    if (marks.begin === "$" && (/\s/.test(src[from]) || /\s/.test(src[to - 1]) || /\d/.test(src[next] ?? ""))) return false;
  }
  if (!silent) {
    const token = state.push("math", "", 0);
    token.content = src.slice(from, to);
    token.meta = { display };
  }
  state.pos = next;
  return true;
}

function blockMath(state, startLine, endLine, silent) {
  const start = state.bMarks[startLine] + state.tShift[startLine];
  if (state.sCount[startLine] - state.blkIndent >= 4) return false;
  const marks = marksAt(state.src, start);
  if (!marks || !marks.display) return false;
  let line = startLine;
  let from = start + marks.begin.length;
  let content = "";
  for (; line < endLine; line += 1) {
    if (line > startLine) {
      if (state.sCount[line] < state.blkIndent && !state.isEmpty(line)) break;
      from = state.bMarks[line] + Math.min(state.tShift[line], state.blkIndent);
    }
    const to = closing(state.src, marks.end, from, state.eMarks[line]);
    if (to >= 0) {
      // Text behind the closing mark: an ordinary paragraph, in which the inline rule finds the display.
      if (state.src.slice(to + marks.end.length, state.eMarks[line]).trim()) return false;
      return push(state, content + state.src.slice(from, to), [startLine, line + 1], silent);
    }
    content += `${state.src.slice(from, state.eMarks[line])}\n`;
  }
  // Not closed yet. While the text still grows it waits as plain text, so that nothing jumps when it closes.
  if (!state.env.growing || line < state.lineMax || line - startLine > OPEN_LINES) return false;
  return push(state, `${marks.begin}${content}`, [startLine, line], silent, true);
}

function push(state, content, map, silent, open = false) {
  if (silent) return true;
  const token = state.push("math", "", 0);
  token.block = true;
  token.map = map;
  token.content = content.trim();
  token.meta = { display: true, open };
  state.line = map[1];
  return true;
}

/** A markdown-it plugin; `render(content, display)` gives the HTML of one formula. */
export function math(md, render) {
  md.inline.ruler.before("escape", "math", inlineMath);
  md.block.ruler.before("fence", "math", blockMath, { alt: ["paragraph", "reference", "blockquote", "list"] });
  md.renderer.rules.math = (tokens, index) => {
    const { content, meta } = tokens[index];
    if (meta.open) return `<pre class="math-open">${md.utils.escapeHtml(content)}</pre>`;
    const html = render(content, meta.display);
    return meta.display ? `<div class="math-display" tabindex="0">${html}</div>` : html;
  };
}
