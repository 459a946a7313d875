// What the visitor chose: within bounds, kept in the browser, and sent only where it is not the card's own.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import "./page.js";

localStorage.setItem("magistral-ui-settings", '{"params": {"temperature": 0.4, "top_p": "much"}, "picture_side": 1.5}');
localStorage.setItem(
  "magistral-ui-presets",
  '[{"name": "Mine", "values": {"temperature": 0.2, "max_tokens": 40000}}, {"name": ""}, null]',
);
const settings = await import("../../magistral_ui/ui/assets/settings.js");
const { PresetsView } = await import("../../magistral_ui/ui/assets/presets.js");
const { ParametersView } = await import("../../magistral_ui/ui/assets/parameters.js");

const parameter = (name, low, high, more = {}) => ({ name, low, high, step: 0.1, common: true, ...more });
const FACTS = {
  card: "magistral",
  parameters: [
    parameter("temperature", 0, 2),
    parameter("max_tokens", 1, 40_000, { integer: true, logarithmic: true, step: 1 }),
    parameter("seed", 0, 1_000, { integer: true, optional: true, common: false }),
  ],
  own: { temperature: 0.7, max_tokens: 40_000, seed: null },
  presets: [
    { key: "own", values: { temperature: 0.7, max_tokens: 40_000, seed: null } },
    { key: "precise", values: { temperature: 0, max_tokens: 40_000, seed: null } },
  ],
  recommended: true,
  missing: {},
};
const kept = () => JSON.parse(localStorage.getItem("magistral-ui-settings"));

test("what was kept comes back as far as it is sound", () => {
  assert.deepEqual(settings.settings.value.params, { temperature: 0.4 });
  assert.equal(settings.settings.value.picture_side, null);
  assert.equal(settings.settings.value.keep_reasoning, true);
  assert.deepEqual(settings.ownPresets.value, [{ name: "Mine", values: { temperature: 0.2, max_tokens: 40_000 } }]);
});

test("followers hear of what there is and of every change, in their order", () => {
  const heard = [];
  settings.measured.follow((value) => heard.push(["first", value.limit]));
  assert.deepEqual(heard, []);
  settings.measured.set({ limit: 5 });
  settings.measured.follow((value) => heard.push(["second", value.limit]));
  settings.measured.set({ limit: 6 });
  const told = [
    ["first", 5],
    ["second", 5],
    ["first", 6],
    ["second", 6],
  ];
  assert.deepEqual(heard, told);
});

const BOUNDED = [
  [0.5, 0.5],
  [-1, 0],
  [7, 2],
  ["1", 0],
  [Number.NaN, 0],
  [null, 0],
];
for (const [value, expected] of BOUNDED) {
  test(`${value} as a temperature is ${expected}`, () => {
    assert.equal(settings.clamp(FACTS.parameters[0], value), expected);
  });
}

test("whole numbers and those that may be missing", () => {
  assert.equal(settings.clamp(FACTS.parameters[1], 3.6), 4);
  assert.equal(settings.clamp(FACTS.parameters[2], undefined), null);
});

test("without a model nothing but what is the visitor's own is sent", () => {
  assert.deepEqual(settings.settingsForRequest().params, {});
  assert.equal(settings.settingsForRequest().system_prompt, null);
});

test("on a model", async (on) => {
  settings.facts.set(FACTS);
  beforeEach(() => settings.change({ params: {}, system_prompts: {} }));

  await on.test("a value that is not the card's own is kept and sent", () => {
    settings.choose("temperature", 1.2);
    assert.deepEqual(settings.settingsForRequest().params, { temperature: 1.2 });
    assert.deepEqual(kept().params, { temperature: 1.2 });
    assert.equal(settings.values().temperature, 1.2);
  });

  await on.test("the card's own value, or none, gives it back", () => {
    settings.choose("temperature", 1.2);
    settings.choose("temperature", 0.7);
    assert.deepEqual(settings.settingsForRequest().params, {});
    settings.choose("max_tokens", 5);
    settings.choose("max_tokens", null);
    assert.deepEqual(kept().params, {});
  });

  await on.test("the prompt of this model is sent, not that of another", () => {
    settings.change({ system_prompts: { magistral: "mine", other: "not this" } });
    assert.equal(settings.settingsForRequest().system_prompt, "mine");
  });

  await on.test("a preset leaves the seed", () => {
    settings.choose("seed", 7);
    settings.choosePreset(FACTS.presets[1].values);
    assert.deepEqual(kept().params, { temperature: 0, seed: 7 });
  });

  await on.test("own presets are kept by name, without the seed", () => {
    settings.choose("temperature", 1.5);
    settings.choose("seed", 7);
    settings.savePreset("Wild");
    settings.savePreset("Wild");
    assert.deepEqual(settings.ownPresets.value.at(-1), {
      name: "Wild",
      values: { temperature: 1.5, max_tokens: 40_000 },
    });
    assert.equal(settings.ownPresets.value.length, 2);
    settings.deletePreset("Wild");
    assert.deepEqual(
      JSON.parse(localStorage.getItem("magistral-ui-presets")).map(({ name }) => name),
      ["Mine"],
    );
  });

  await on.test("the chip of the present values is chosen, and none where they are nobody's", () => {
    const view = new PresetsView();
    document.body.append(view.element);
    const chosen = () => view.current?.key ?? view.current?.name ?? null;
    assert.equal(chosen(), "own");
    settings.choose("temperature", 0);
    assert.equal(chosen(), "precise");
    settings.choose("temperature", 0.2);
    assert.equal(chosen(), "Mine");
    settings.choose("temperature", 1.9);
    assert.equal(chosen(), null);
    assert.equal(view.save.hidden, false);
  });

  await on.test("each parameter has its control; a slider of factors takes equal steps", () => {
    const element = document.body.appendChild(document.createElement("div"));
    const view = new ParametersView(element);
    view.show(FACTS);
    const [, tokens] = view.controls;
    assert.deepEqual([tokens.toSlider(1), tokens.toSlider(200), tokens.toSlider(40_000)], [0, 120, 240]);
    assert.deepEqual([tokens.fromSlider(0), tokens.fromSlider(120), tokens.fromSlider(240)], [1, 200, 40_000]);
    tokens.number.value = "90000";
    tokens.typed();
    assert.equal(tokens.number.value, "40000");
    view.controls[0].number.value = "";
    view.controls[0].typed();
    assert.equal(view.controls[0].number.value, "0.7");
    assert.equal(view.controls[2].slider, undefined);
  });
});
