// Lookups for rules that parse a text line by line, so that nothing is scanned repeatedly.

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
 * The first line after `line` that is outside the current list item or quotation; `end` if there is none.
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
 * Whether more text may follow the lines before `end`, because they are the last ones.
 * @param {BlockState} state
 * @param {number} end
 */
export function isGrowing(state, end) {
  if (!state.env.growing) return false;
  state.textEnd ??= state.src.trimEnd().length;
  return state.eMarks[end - 1] >= state.textEnd;
}
