// The page's texts by key, formatted with values and localized numbers.

/** @import { Message, Values } from "./types.js" */

// The page names the file of its language, and preloads it (see ui/translated_page.py).
/** @type {{language: string, texts: Record<string, string | Record<string, string>>}} */
const { language, texts } = await import(new URL(document.documentElement.dataset.texts ?? "", document.baseURI).href);
const plural = new Intl.PluralRules(language);
const isolate = document.documentElement.dir === "rtl";
const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });

/**
 * The text of `key`, formatted with `values`, of which `count` (or else `limit`) chooses the plural form.
 * @param {string} key
 * @param {Values} values
 * @returns {string}
 */
export function t(key, values = {}) {
  let text = texts[key] ?? key;
  if (typeof text === "object") text = text[plural.select(values.count ?? values.limit ?? 0)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (gap, name) => {
    const value = values[name];
    if (value === undefined) return gap;
    if (typeof value === "number") return whole.format(value);
    // Names and numbers of other scripts must not turn the words around them about (U+2068 and U+2069 keep them apart).
    return isolate ? `\u2068${value}\u2069` : String(value);
  });
}

/**
 * Facts in a row; those that are empty are left out.
 * @param {(string | null)[]} facts
 */
export const inRow = (facts) =>
  facts
    .filter(Boolean)
    .map((fact) => (isolate ? `\u2068${fact}\u2069` : fact))
    .join("\u00a0· "); // a line may end with the dot, but not begin with it

/**
 * Facts in a row, of which a line ends only between two.
 * @param {string} facts
 */
export const unbroken = (facts) => facts.replace(/(?<!·) /g, "\u00a0");

/**
 * Whether there is a text of this key.
 * @param {string} key
 */
export const has = (key) => key in texts;

/**
 * The message about a failure `{key, values}`, with its remedy.
 * @param {Message} failure
 */
export function sentence(failure) {
  const key = `error_${failure.key}`;
  return t(has(key) ? key : "error_unexpected", failure.values);
}

/**
 * A number with grouped digits, in the page's language.
 * @param {number} value
 */
export const number = (value) => whole.format(value);

/**
 * Seconds with one decimal place below a hundred, and none above.
 * @param {number} value
 */
export function seconds(value) {
  const digits = value < 100 ? 1 : 0;
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(
    value,
  );
}

/**
 * A number in compact notation, such as 24B or 1.6M in English.
 * @param {number} value
 */
export const short = (value) =>
  new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 }).format(value);

/**
 * A count of bytes in the unit that suits it, but none smaller than kilobytes: a short "byte" has no plural in English.
 * @param {number} value
 */
export function bytes(value) {
  const units = ["kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(value, 1000)) / 3) - 1);
  /** @type {Intl.NumberFormatOptions} */
  const format = { style: "unit", unit: units[step], unitDisplay: "short", maximumFractionDigits: step ? 1 : 0 };
  const amount = value / 1000 ** (step + 1);
  return new Intl.NumberFormat(language, format).format(amount < 1 ? Math.ceil(amount) : amount);
}

/**
 * Per cent with one decimal, so that figures below each other compare.
 * @param {number} value
 */
export const percent = (value) =>
  new Intl.NumberFormat(language, {
    style: "percent",
    minimumFractionDigits: 1,
    maximumFractionDigits: 1,
  }).format(value / 100);

/**
 * The names of languages, sorted, as a list.
 * @param {string[]} codes
 */
export function languageNames(codes) {
  const names = new Intl.DisplayNames(language, { type: "language" });
  const sorted = codes.map((code) => names.of(code) ?? code).sort(new Intl.Collator(language).compare);
  return new Intl.ListFormat(language, { type: "conjunction" }).format(sorted);
}

/**
 * A rough time to wait: in seconds below two minutes, in minutes below two hours, in hours above.
 * @param {number} value
 */
export function duration(value) {
  /** @type {[number, string]} */
  const [amount, unit] =
    value < 120
      ? [Math.ceil(value), "second"]
      : value < 7_200
        ? [Math.ceil(value / 60), "minute"]
        : [Math.ceil(value / 360) / 10, "hour"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "long" }).format(amount);
}
