// What the rules that read a text line by line look up, so that nothing is looked through again and again.

/** @import { BlockState } from "./types.js" */

/**
 * How many of the `sorted` numbers are below `value`.
 * @param {number[]} sorted
 * @param {number} value
 */
export function below(sorted, value) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The first line behind `line` that stands no longer in the list item or quotation that is read; `end` if there is none.
 * @param {BlockState} state
 * @param {number} line
 * @param {number} end
 */
export function firstOutside(state, line, end) {
  const known = state.inside;
  const { blkIndent, level } = state;
  if (
    known?.blkIndent === blkIndent &&
    known.level === level &&
    known.end === end &&
    known.from <= line &&
    line < known.to
  )
    return known.to;
  let to = line + 1;
  while (to < end && (state.sCount[to] >= blkIndent || state.isEmpty(to))) to += 1;
  state.inside = { blkIndent, level, end, from: line, to };
  return to;
}

/**
 * Whether more of the text may come behind the lines before `end`: they are its last ones.
 * @param {BlockState} state
 * @param {number} end
 */
export function isGrowing(state, end) {
  if (!state.env.growing) return false;
  state.textEnd ??= state.src.trimEnd().length;
  return state.eMarks[end - 1] >= state.textEnd;
}
