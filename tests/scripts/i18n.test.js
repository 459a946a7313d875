// Texts by key: gaps, plural forms, and numbers as the language writes them.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.js";
import { bytes, duration, has, number, seconds, sentence, short, t } from "../../magistral_ui/ui/assets/i18n.js";

test("a key without a text is shown itself", () => {
  assert.equal(t("no_such_key"), "no_such_key");
  assert.equal(has("no_such_key"), false);
  assert.equal(has("turn_copy"), true);
});

test("gaps are filled, and those without a value stay", () => {
  assert.match(t("turn_queued", { position: 3 }), /3/);
  assert.match(t("turn_queued"), /\{position\}/);
});

test("the count chooses the plural form, and a limit where there is no count", () => {
  assert.notEqual(t("turn_tokens", { count: 1 }).replace("1", ""), t("turn_tokens", { count: 2 }).replace("2", ""));
  assert.match(t("ended_length", { limit: 1 }), /1/);
});

test("numbers are written as the language does", () => {
  assert.equal(number(1234567), "1,234,567");
  assert.match(t("turn_tokens", { count: 12345 }), /12,345/);
  assert.deepEqual([seconds(9.04), seconds(99.96), seconds(100.4)], ["9.0", "100.0", "100"]);
  assert.deepEqual([short(24e9), short(1.6e6)], ["24B", "1.6M"]);
  assert.deepEqual([bytes(0), bytes(999), bytes(1500), bytes(2.5e6)], ["0 kB", "1 kB", "2 kB", "2.5 MB"]);
  assert.deepEqual([duration(1.2), duration(119.5), duration(121)], ["2 seconds", "120 seconds", "3 minutes"]);
  assert.deepEqual([duration(7_100), duration(14_400), duration(9_001)], ["119 minutes", "4 hours", "2.6 hours"]);
});

test("a failure without a sentence of its own gets the general one", () => {
  assert.equal(sentence({ key: "no_such_failure" }), t("error_unexpected"));
  assert.equal(sentence({ key: "unavailable" }), t("error_unavailable"));
  assert.notEqual(t("error_unavailable"), t("error_unexpected"));
});
