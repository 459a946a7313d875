// The page's texts by key, with their gaps filled and their numbers written as the language does.

const page = document.getElementById("magistral-strings");
const { language, texts } = page ? JSON.parse(page.textContent) : { language: "en", texts: {} };
const plural = new Intl.PluralRules(language);
const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });

/** The text of `key`; `values` fill its gaps, and `count` (or else `limit`) chooses its plural form. */
export function t(key, values = {}) {
  let text = texts[key] ?? key;
  if (typeof text === "object") text = text[plural.select(values.count ?? values.limit ?? 0)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (gap, name) => {
    const value = values[name];
    return value === undefined ? gap : typeof value === "number" ? whole.format(value) : String(value);
  });
}

/** Whether there is a text of this key. */
export const has = (key) => key in texts;

/** What to tell about a failure `{key, values}`, remedy included. */
export function sentence(failure) {
  const key = `error_${failure.key}`;
  return t(has(key) ? key : "error_unexpected", failure.values);
}

/** Seconds with one decimal below a hundred, without above. */
export function seconds(value) {
  const digits = value < 100 ? 1 : 0;
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** A number in short, such as 24B or 1.6M. */
export const short = (value) => new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);

/** A count of bytes in the unit that suits it. */
export function bytes(value) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(value, 1)) / 3));
  const format = { style: "unit", unit: units[step], unitDisplay: "short", maximumFractionDigits: step > 1 ? 1 : 0 };
  return new Intl.NumberFormat(language, format).format(value / 1000 ** step);
}

/** A rough time to wait, in seconds below two minutes, in minutes above. */
export function duration(value) {
  const [amount, unit] = value < 120 ? [Math.ceil(value), "second"] : [Math.ceil(value / 60), "minute"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "long" }).format(amount);
}
