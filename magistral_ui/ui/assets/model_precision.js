// A precision in plain words, such as “4-bit (Q4_K_M)”, and what it means; it knows no model.

import { t } from "./i18n.js";

/** @type {Record<string, number>} */
const BITS = { float32: 32, bfloat16: 16, float16: 16, int8: 8, nf4: 4, F32: 32, F16: 16, BF16: 16, f16: 16 };
const GGUF_TYPE = /^(?:UD-)?(?:I?Q|TQ|MXFP)(\d)/i; // llama.cpp's names of quantizations; UD- is Unsloth's prefix

/**
 * Bits per weight, as the name says; 0 if it says nothing.
 * @param {string} precision
 */
export const bitsOf = (precision) => BITS[precision] ?? Number(GGUF_TYPE.exec(precision)?.[1] ?? 0);

/** @param {string} precision */
export function precisionText(precision) {
  const bits = bitsOf(precision);
  return bits ? t("precision_bits", { bits, name: precision }) : precision;
}

/**
 * What a precision means, in a sentence; empty for one that needs none.
 * @param {string} precision
 */
export function precisionHelp(precision) {
  if (precision === "nf4" || precision === "int8") return t("precision_help_bitsandbytes");
  if (precision === "bfloat16" || precision === "BF16") return t("precision_help_full");
  return GGUF_TYPE.test(precision) ? t("precision_help_gguf") : "";
}
