// Texts of a language that is written from right to left.

import assert from "node:assert/strict";
import { test } from "node:test";

process.env.PAGE_LANGUAGE = "ar";
await import("./page.js");
const { t } = await import("../../magistral_ui/ui/assets/i18n.js");

test("names of other scripts are kept apart from the words around them", () => {
  assert.match(t("history_removed", { title: "Name" }), /\u2068Name\u2069/);
});

test("Arabic has plural forms that English has not", () => {
  const forms = [0, 1, 2, 3, 11].map((count) => t("turn_tokens", { count }).replace(/[\d٠-٩]+/g, ""));
  assert.ok(new Set(forms).size > 2);
});
