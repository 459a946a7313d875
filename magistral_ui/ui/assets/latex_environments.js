// LaTeX environments that need no delimiters around them, converted to those that KaTeX knows.

/** Environments on lines of their own, and others that are also allowed within a line. */
export const DISPLAYS = new Set(
  (
    "equation align gather multline flalign alignat eqnarray displaymath subequations xalignat dmath IEEEeqnarray CD split aligned " +
    "alignedat gathered multlined"
  ).split(" "),
);
export const ENVIRONMENTS = new Set([
  ...DISPLAYS,
  ..."math cases dcases rcases drcases numcases matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix array darray subarray".split(
    " ",
  ),
]);
const MARK = /\\(begin|end)\{([A-Za-z]+)(\*?)\}/g;
/** Environments that KaTeX names differently, or lacks. */
/** @type {Record<string, string>} */
const OTHER = {
  flalign: "align",
  xalignat: "alignat",
  multline: "gather",
  multlined: "gathered",
  numcases: "cases",
  displaymath: "equation",
  dmath: "equation",
  math: "aligned",
  eqnarray: "darray",
  IEEEeqnarray: "darray",
};
const STARRED = /^(?:equation|align|alignat|gather|[pbBvV]?matrix)$/;
/** A percent sign after a number, where LaTeX would begin a comment. */
const PERCENT = /([0-9}] ?)%/g;
const UNNUMBERED = new Set(["displaymath", "dmath"]);
/** Replacements within a line, or if the first ones are not accepted. */
/** @type {Record<string, string>} */
const INNER = {
  equation: "aligned",
  align: "aligned",
  gather: "gathered",
  alignat: "alignedat",
  split: "aligned",
  CD: "aligned",
  subarray: "array",
};

/**
 * `latex` with only environments that KaTeX knows; `inner` if displays are not allowed.
 * @param {string} latex
 * @param {boolean} inner
 */
export function environments(latex, inner) {
  latex = latex.replace(PERCENT, "$1\\%");
  if (!latex.includes("\\begin")) return latex;
  return latex
    .replace(MARK, (_, word, name, star) => {
      if (name === "subequations") return inner ? `\\${word}{aligned}` : "{}";
      const known = OTHER[name] ?? name;
      const columns = name === "eqnarray" && word === "begin" ? "{rcl}" : "";
      if (inner && INNER[known]) return `\\${word}{${INNER[known]}}`;
      const numbered = star || UNNUMBERED.has(name) ? "*" : "";
      return `\\${word}{${known}${STARRED.test(known) ? numbered : ""}}${columns}`;
    })
    .replace(/\\begin\{darray\}\{[rRlLcCsS|]*\}/g, (begin) => begin.toLowerCase().replace("s", ""));
}
