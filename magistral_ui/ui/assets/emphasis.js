// Lets emphasis begin and end next to scripts without spaces between words; everything else is as in CommonMark.
// export/gfm.py has the same rule.

/** @import { MarkdownIt } from "./types.js" */

// Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese, Korean and Yi, with their punctuation and full-width forms.
export const UNSPACED =
  /[\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u19e0-\u19ff\u2e80-\u2fdf\u2ff0-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\ua9e0-\ua9ff\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff\ufe10-\ufe1f\ufe30-\ufe4f\uff01-\uffee\u{1b000}-\u{1b16f}\u{20000}-\u{323af}]/u;
const SPACE = /[\t-\r \u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]/;
const PUNCTUATION = /[\p{P}\p{S}]/u;
// Characters that only modify the one before them.
const JOINER = /[\ufe00-\ufe0f\u200c\u200d]|[\u{e0100}-\u{e01ef}]/u;

/**
 * The character before `at`, or a space at the beginning.
 * @param {string} text
 * @param {number} at
 */
function before(text, at) {
  while (at > 0) {
    const low = text.charCodeAt(at - 1);
    const size = low >= 0xdc00 && low <= 0xdfff && at > 1 ? 2 : 1;
    const character = text.slice(at - size, at);
    if (!JOINER.test(character)) return character;
    at -= size;
  }
  return " ";
}

/**
 * Whether the run of `length` marks at `start` may open and close. In CommonMark, punctuation inside the marks needs a
 * space or punctuation outside them; in scripts without spaces between words, a letter outside is enough, and so is that
 * script's own punctuation inside.
 * @param {string} text
 * @param {number} start
 * @param {number} length
 * @param {number} limit
 */
function flanking(text, start, length, limit) {
  const last = before(text, start);
  const next = start + length < limit ? String.fromCodePoint(text.codePointAt(start + length) ?? 0) : " ";
  const [lastSpace, nextSpace] = [SPACE.test(last), SPACE.test(next)];
  const [lastMark, nextMark] = [PUNCTUATION.test(last), PUNCTUATION.test(next)];
  const [lastUnspaced, nextUnspaced] = [last > "\u0dff" && UNSPACED.test(last), next > "\u0dff" && UNSPACED.test(next)];
  return {
    left: !nextSpace && (!nextMark || nextUnspaced || lastSpace || lastMark || lastUnspaced),
    right: !lastSpace && (!lastMark || lastUnspaced || nextSpace || nextMark || nextUnspaced),
    lastMark,
    nextMark,
  };
}

/**
 * A markdown-it plugin.
 * @param {MarkdownIt} md
 */
export function emphasis(md) {
  md.inline.State = class extends md.inline.State {
    /**
     * @override
     * @param {number} start
     * @param {boolean} canSplitWord
     */
    scanDelims(start, canSplitWord) {
      let end = start;
      while (end < this.posMax && this.src[end] === this.src[start]) end += 1;
      const { left, right, lastMark, nextMark } = flanking(this.src, start, end - start, this.posMax);
      return {
        can_open: left && (canSplitWord || !right || lastMark),
        can_close: right && (canSplitWord || !left || nextMark),
        length: end - start,
      };
    }
  };
}
