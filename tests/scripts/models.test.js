// The list of models: its order, what can be done in each state, and the words for sizes, pace and progress.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.js";

const facts = await import("../../magistral_ui/ui/assets/model_facts.js");
const { ModelEntry } = await import("../../magistral_ui/ui/assets/model_entry.js");
const { offerFacts } = await import("../../magistral_ui/ui/assets/model_offer.js");
const { ModelsView } = await import("../../magistral_ui/ui/assets/models.js");

const { actionsFor, asFrom, benchmarksOf, bestChoice, contextsUpTo, diskText, likelySource } = facts;
const { ordered, paceText, wayTexts, withCopies } = facts;
const GB = 1e9;
const CHOICE = { precision: "nf4", weights: 7 * GB, needs: 9 * GB, context: 20_000, pace: 34.2, measured: false };
const model = (key, more = {}) => ({
  key,
  name: key,
  repository: key,
  quantization: "",
  license: "",
  parameters: 0,
  languages: [],
  benchmarks: {},
  state: "absent",
  on_disk: 0,
  download: 18 * GB,
  done: 0,
  total: 18 * GB,
  seconds_left: null,
  seconds: null,
  fits: true,
  refusal: null,
  failure: null,
  best: false,
  choices: [CHOICE],
  ways: [],
  original: null,
  ...more,
});
const DEMO = { key: "demo", precision: "float32", context: 8192, state: "ready" };
const value = (models, more = {}) => ({
  owner: true,
  switchable: true,
  device: "CPU",
  memory: { free: 5 * GB, total: 8 * GB },
  disk_free: 100 * GB,
  idle_minutes: 7,
  current: DEMO,
  running: 0,
  asks: null,
  failure: null,
  offer: null,
  timing: false,
  models,
  ...more,
});

test("the model in use comes first, then the best, and last what cannot run here", () => {
  const found = ordered(
    value([model("large", { fits: false }), model("small"), model("best", { best: true }), model("demo")]),
  );
  assert.deepEqual(
    found.map(({ key }) => key),
    ["demo", "best", "small", "large"],
  );
});

const ACTIONS = [
  ["absent", {}, ["download"]],
  ["absent", { fits: false }, []],
  ["downloading", {}, ["pause"]],
  ["paused", {}, ["resume", "remove"]],
  ["partial", {}, ["resume", "remove"]],
  ["partial", { fits: false }, ["remove"]],
  ["complete", {}, ["use", "remove"]],
  ["complete", { fits: false }, ["remove"]],
  ["local", {}, ["use"]],
];
for (const [state, more, expected] of ACTIONS) {
  test(`actions for ${state} ${JSON.stringify(more)}`, () => {
    assert.deepEqual(actionsFor(model("any", { state, ...more }), DEMO), expected);
  });
}

test("the model in use is unloaded, never removed; the demo model takes no memory worth freeing", () => {
  const used = model("any", { state: "complete" });
  assert.deepEqual(actionsFor(used, { ...DEMO, key: "any" }), ["unload"]);
  assert.deepEqual(actionsFor(used, { ...DEMO, key: "any", state: "unloaded" }), []);
  assert.deepEqual(actionsFor(model("demo", { state: "local" }), DEMO), []);
});

test("the choice whose pace is known is the best one", () => {
  const unknown = { ...CHOICE, precision: "bfloat16", pace: null };
  assert.equal(bestChoice(model("any", { choices: [unknown, CHOICE] })).precision, "nf4");
  assert.equal(bestChoice(model("any", { choices: [unknown] })).precision, "bfloat16");
  assert.equal(bestChoice(model("any", { choices: [] })), undefined);
});

test("pace says whether it was measured, and is exact only where it is slow", () => {
  assert.equal(paceText(CHOICE), "about 34 tokens/s");
  assert.equal(paceText({ ...CHOICE, pace: 4.26, measured: true }), "4.3 tokens/s, measured here");
  assert.equal(paceText({ ...CHOICE, pace: null }), null);
  assert.equal(paceText(undefined), null);
});

test("what is on disk", () => {
  assert.equal(diskText(model("any")), "18 GB to download");
  assert.equal(diskText(model("any", { state: "complete", on_disk: 20 * GB })), "20 GB on disk");
  assert.equal(
    diskText(model("any", { state: "downloading", done: 3 * GB, seconds_left: 240 })),
    "Downloading: 3 GB of 18 GB\u00a0· about 4 minutes left",
  );
  assert.equal(diskText(model("any", { state: "local" })), null);
});

test("contexts double up to what fits; benchmarks come in one order", () => {
  assert.deepEqual(contextsUpTo(20_000), [8_192, 16_384, 20_000]);
  assert.deepEqual(contextsUpTo(4_096), [4_096]);
  assert.deepEqual(benchmarksOf(model("any", { benchmarks: { gpqa_diamond: 66.8, aime25: 78.66, other: 1 } })), [
    ["AIME25", "78.7%"],
    ["GPQA Diamond", "66.8%"],
  ]);
});

test("an offer says what a download takes, and nothing of it where all is there", () => {
  const offered = model("any", { seconds: 600 });
  const run = "4-bit (nf4)\u00a0· 9 GB of memory\u00a0· about 34 tokens/s";
  const download = "18 GB to download\u00a0· about 10 minutes to download\u00a0· 100 GB free on disk";
  assert.deepEqual(offerFacts(offered, value([])), [run, download]);
  assert.deepEqual(offerFacts({ ...offered, state: "complete" }, value([])), [run]);
  const begun = { ...offered, state: "partial", done: 3 * GB };
  const rest = "Partly downloaded: 3 GB of 18 GB\u00a0· about 10 minutes to download\u00a0· 100 GB free on disk";
  assert.deepEqual(offerFacts(begun, value([])), [run, rest]);
});

const EXACT = { ...CHOICE, precision: "bfloat16", needs: 20 * GB, pace: null };
const way = (repository, precision, download) => ({ repository, precision, download, memory: 7 * GB });
const WAYS = [way("any", "bfloat16", 18 * GB), way("any", "nf4", 18 * GB), way("o/any-nf4", "nf4", 6 * GB)];
const offered = () => model("any", { choices: [EXACT, CHOICE], ways: WAYS });
const copy = (more) => model("o/any-nf4", { original: "any", choices: [], download: 6 * GB, ...more });

test("a quantized copy is listed under its original, and shown once there is something of it", () => {
  const [found, ...rest] = withCopies([offered(), copy({ state: "paused" })]);
  assert.deepEqual(rest, []);
  assert.equal(likelySource(found, DEMO), "o/any-nf4");
  assert.equal(likelySource({ ...found, state: "complete" }, DEMO), "any");
  assert.equal(likelySource({ ...found, state: "complete" }, { ...DEMO, key: "o/any-nf4" }), "o/any-nf4");
  const shown = asFrom(found, "o/any-nf4");
  assert.deepEqual([shown.key, shown.state, shown.name, shown.fits], ["o/any-nf4", "paused", "any", true]);
  assert.deepEqual(shown.choices, [CHOICE]);
  assert.deepEqual(withCopies([copy()]).length, 1); // of a model that is not in the list
});

test("each way says what it takes to get and to run", () => {
  const [exact, here, ready] = WAYS.map((each) => wayTexts(each, offered()));
  assert.deepEqual(exact, { facts: "16-bit (bfloat16)\u00a0· 20 GB of memory", source: "18 GB to download" });
  assert.equal(here.facts, "4-bit (nf4)\u00a0· 9 GB of memory\u00a0· about 34 tokens/s");
  assert.equal(here.source, "18 GB to download\u00a0· quantized on this computer");
  assert.equal(ready.source, "about 6 GB to download\u00a0· already quantized");
  assert.equal(diskText(offered()), "18 GB to download\u00a0· or about 6 GB already in nf4");
  assert.equal(diskText(asFrom(offered(), "o/any-nf4")), "about 6 GB to download");
});

test("the way that is chosen is what is downloaded; a copy needs no precision", () => {
  const asked = [];
  const entry = new ModelEntry((name, { key }, chosen) => asked.push([name, key, chosen.precision]));
  entry.show(offered(), DEMO);
  const [exact, here, ready] = entry.element.querySelectorAll("input[type=radio]");
  assert.equal(here.checked, true);
  const download = () => entry.element.querySelector('[data-act="download"]').click();
  download();
  for (const radio of [exact, ready]) {
    const again = entry.element.querySelector(`[data-act="${radio.dataset.act}"]`);
    again.checked = true;
    again.dispatchEvent(new Event("change"));
    download();
  }
  assert.deepEqual(asked, [
    ["download", "any", null],
    ["download", "any", "bfloat16"],
    ["download", "o/any-nf4", null],
  ]);
  assert.match(entry.element.textContent, /about 6 GB to download/);
});

test("the contexts to choose from are those that fit in the precision that is chosen", () => {
  const entry = new ModelEntry(() => {});
  const choices = [
    { ...EXACT, context: 10_000 },
    { ...CHOICE, context: 40_000 },
  ];
  entry.show({ ...offered(), choices }, DEMO);
  const context = () => entry.element.querySelector('[data-act="context"]');
  const values = () => [...context().options].map(({ value }) => value);
  assert.deepEqual(values(), ["", "8192", "16384", "32768", "40000"]);
  context().value = "32768";
  context().dispatchEvent(new Event("change"));
  const exact = entry.element.querySelector('[data-act="way-any-bfloat16"]');
  exact.checked = true;
  exact.dispatchEvent(new Event("change"));
  assert.deepEqual([values(), context().value], [["", "8192", "10000"], "10000"]);
});

test("languages and figures are written as the reader's language does", () => {
  const entry = new ModelEntry(() => {});
  entry.show(model("any", { repository: "a/b", languages: ["fr", "de"], benchmarks: { aime25: 85 } }), DEMO);
  assert.match(entry.element.textContent, /Languages: French and German/);
  assert.match(entry.element.textContent, /85\.0%/);
  assert.equal(entry.element.querySelector("a").href, "https://huggingface.co/a/b");
});

test("where nothing can be switched, the owner reads why", () => {
  const { found } = view();
  found.show(value([], { switchable: false, why_not: { key: "models_on_zerogpu", values: {} } }));
  assert.match(found.element.textContent, /ZeroGPU/);
});

test("a download in progress redraws its numbers only", () => {
  const entry = new ModelEntry(() => {});
  entry.show(model("any", { state: "downloading", done: GB }), DEMO);
  const button = entry.element.querySelector("button");
  entry.show(model("any", { state: "downloading", done: 2 * GB, seconds_left: 30 }), DEMO);
  assert.equal(entry.element.querySelector("button"), button);
  assert.match(entry.element.textContent, /2 GB of 18 GB/);
  assert.equal(entry.element.querySelector("progress").value, 2 * GB);
});

function view() {
  const asked = [];
  const looked = [];
  const found = new ModelsView(
    document.body.appendChild(document.createElement("div")),
    async (...question) => void asked.push(question),
    () => looked.push(1),
  );
  return { found, asked, looked };
}

test("who is no owner asks once and sees nothing", async () => {
  const { found, asked } = view();
  found.show({ owner: false });
  await found.refresh();
  assert.deepEqual(asked, [["list"]]);
  assert.equal(found.element.childElementCount, 0);
});

test("a finished download that was wanted is switched to, one that failed is not", () => {
  const { found, asked } = view();
  sessionStorage.setItem("magistral-ui-wanted-model", "any");
  found.show(value([model("any", { state: "complete" })]));
  assert.deepEqual(asked.at(-1), ["switch", { key: "any" }]);
  sessionStorage.setItem("magistral-ui-wanted-model", "any");
  found.show(value([model("any", { state: "partial", failure: { key: "hub_offline" } })]));
  assert.equal(sessionStorage.getItem("magistral-ui-wanted-model"), null);
  assert.equal(asked.length, 2);
});

test("a load that fails again in the same way is told again", () => {
  const { found } = view();
  const failure = { key: "model_error", values: {} };
  const loading = value([model("any")], { failure, current: { ...DEMO, state: "loading" } });
  found.show(value([model("any")], { failure }));
  assert.equal(found.alert.hidden, false);
  found.showAlert(null);
  found.show(value([model("any")], { failure }));
  assert.equal(found.alert.hidden, true);
  found.show(loading);
  assert.equal(found.alert.hidden, true);
  found.show(value([model("any")], { failure }));
  assert.equal(found.alert.hidden, false);
  clearTimeout(found.timer);
});

test("the page looks at the model whenever another one is current", () => {
  const { found, looked } = view();
  found.show(value([model("any")]));
  assert.equal(looked.length, 0);
  found.show(value([model("any")], { current: { ...DEMO, key: "any" } }));
  assert.equal(looked.length, 1);
  assert.equal(found.idle.value, "7");
});
