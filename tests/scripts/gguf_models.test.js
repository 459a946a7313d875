// Models as GGUF files: how they are named, grouped, offered and downloaded beside the original weights.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.js";

const { asFrom, diskText, findModel, likelySource, withCopies } = await import(
  "../../magistral_ui/ui/assets/model_facts.js"
);
const { ModelEntry } = await import("../../magistral_ui/ui/assets/model_entry.js");
const { modelPanel } = await import("../../magistral_ui/ui/assets/model_panel.js");
const { bitsOf, precisionHelp, precisionText } = await import("../../magistral_ui/ui/assets/model_precision.js");
const { ModelsView } = await import("../../magistral_ui/ui/assets/models.js");

const GB = 1e9;
const FILES = "unsloth/Any-GGUF";
const PLAIN = "mistralai/any";
const DEMO = { key: "demo", precision: "float32", context: 8192, state: "ready" };
const choice = (precision, engine, pace = null) => {
  return { precision, engine, weights: 5 * GB, needs: 6 * GB, context: 20_000, pace, measured: false };
};
const way = (repository, precision, engine, download) => {
  return { repository, precision, engine, download: download * GB, memory: 5 * GB, fits: true };
};
const NAMES = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"];
const gguf = (name, index) => way(`${FILES}:${name}`, name, "llama.cpp", 9 - index);
const model = (more = {}) => ({
  ...{ key: "any", name: "Any", repository: PLAIN, license: "", parameters: 0, languages: [], benchmarks: {} },
  ...{ state: "absent", on_disk: 0, download: 18 * GB, done: 0, total: 18 * GB, seconds_left: null, seconds: null },
  ...{ fits: true, refusal: null, failure: null, best: true, original: null, quantization: "" },
  choices: [
    choice("Q4_K_M", "llama.cpp", 12),
    ...NAMES.filter((name) => name !== "Q4_K_M").map((name) => choice(name, "llama.cpp", 8)),
    choice("nf4", "transformers", 5),
  ],
  ways: [...NAMES.map(gguf), way(PLAIN, "nf4", "transformers", 18)],
  ...more,
});
const KEY = `${FILES}:Q4_K_M`;
const copy = (more) => {
  const own = { key: KEY, repository: FILES, quantization: "Q4_K_M", original: "any", name: "Any Q4_K_M" };
  return model({ ...own, choices: [], ways: [], download: 6 * GB, total: 6 * GB, ...more });
};
const value = (models, more = {}) => ({
  ...{ owner: true, switchable: true, why_not: null, device: "CPU", memory: { free: 5 * GB, total: 8 * GB } },
  ...{ disk_free: 100 * GB, idle_minutes: 0, current: DEMO, running: 0, asks: null, failure: null },
  ...{ offer: "any", timing: false, models, ...more },
});

test("a precision is told in bits, with its name", () => {
  const bits = { Q4_K_M: 4, "UD-Q4_K_XL": 4, IQ3_XXS: 3, Q8_0: 8, MXFP4: 4, BF16: 16, nf4: 4, float32: 32, fp8: 0 };
  for (const [name, expected] of Object.entries(bits)) assert.equal(bitsOf(name), expected, name);
  assert.equal(precisionText("Q4_K_M"), "4-bit (Q4_K_M)");
  assert.equal(precisionText("fp8"), "fp8");
  assert.match(precisionHelp("Q4_K_M"), /in advance for llama\.cpp/);
  assert.match(precisionHelp("nf4"), /while the model loads/);
  assert.equal(precisionHelp("float32"), "");
});

test("the best choice's source is shown, until another one is on this computer or in use", () => {
  const [absent] = withCopies([model()]);
  assert.equal(likelySource(absent, DEMO), KEY);
  assert.equal(likelySource({ ...absent, state: "complete" }, DEMO), PLAIN);
  const [held] = withCopies([model(), copy({ state: "complete", on_disk: 6 * GB })]);
  assert.equal(likelySource(held, DEMO), KEY);
  assert.equal(likelySource(absent, { ...DEMO, key: "any" }), PLAIN);
  const shown = asFrom(held, KEY);
  assert.deepEqual([shown.key, shown.repository, shown.name, shown.state], [KEY, FILES, "Any", "complete"]);
  assert.deepEqual(
    shown.choices.map(({ precision }) => precision),
    ["Q4_K_M"],
  );
  assert.equal(diskText(asFrom(absent, KEY)), "about 6 GB to download");
});

test("files that are here but do not fit can be removed, not used", () => {
  const ways = [{ ...gguf("Q8_0", 0), fits: false }];
  const [held] = withCopies([model({ ways }), copy({ key: `${FILES}:Q8_0`, state: "complete" })]);
  assert.equal(asFrom(held, `${FILES}:Q8_0`).fits, false);
});

test("GGUF files come before the original weights where they are best, and rare quantizations are collapsed", () => {
  const asked = [];
  const entry = new ModelEntry((name, { key }, chosen) => asked.push([name, key, chosen.precision]));
  entry.show(model(), DEMO);
  const kinds = [...entry.element.querySelectorAll(".kind")];
  assert.deepEqual(
    kinds.map((kind) => kind.querySelector("legend").textContent),
    ["GGUF files, run by llama.cpp", "Original weights, run by transformers"],
  );
  const acts = (element) => [...element.querySelectorAll("input")].map((each) => each.dataset.act.split("-").at(-1));
  assert.deepEqual(acts(kinds[0].querySelector("details")), ["Q8_0", "Q6_K", "Q2_K"]);
  assert.equal(kinds[0].querySelector("summary").textContent, "3 more");
  assert.equal(kinds[0].querySelector("bdi").textContent, FILES);
  assert.equal(kinds[0].querySelector(":checked").dataset.act, `way-${KEY}-Q4_K_M`);
  entry.element.querySelector('[data-act="download"]').click();
  const rare = kinds[0].querySelector(`[data-act="way-${FILES}:Q2_K-Q2_K"]`);
  rare.checked = true;
  rare.dispatchEvent(new Event("change"));
  entry.element.querySelector('[data-act="download"]').click();
  assert.deepEqual(asked, [
    ["download", KEY, null],
    ["download", `${FILES}:Q2_K`, null],
  ]);
});

test("where the original weights are best, they come first, and alone they need no heading", () => {
  const entry = new ModelEntry(() => {});
  const choices = [choice("nf4", "transformers", 40), choice("Q4_K_M", "llama.cpp", 30)];
  const both = [gguf("Q4_K_M", 3), way(PLAIN, "nf4", "transformers", 18)];
  const legends = () => [...entry.element.querySelectorAll(".kind legend")].map((each) => each.textContent);
  entry.show(model({ choices, ways: both }), DEMO);
  assert.deepEqual(legends(), ["Original weights, run by transformers", "GGUF files, run by llama.cpp"]);
  entry.show(model({ choices, ways: both.slice(1) }), DEMO);
  assert.deepEqual(legends(), []);
  entry.show(model({ choices, ways: both.slice(0, 1) }), DEMO);
  assert.deepEqual(legends(), ["GGUF files, run by llama.cpp"]);
});

/** What is to be read; spaces that keep facts together are as good as others. */
const read = ({ element }) => element.textContent.replace(/\s/g, " ");

test("the offer downloads the file that runs best, waits for it, and switches to it", async () => {
  const asked = [];
  const act = async (...question) => void asked.push(question);
  const view = new ModelsView(document.body.appendChild(document.createElement("div")), act, () => {});
  view.show(value([model()]));
  assert.match(read(view.offer), /4-bit \(Q4_K_M\).*6 GB of memory.*about 6 GB to download/);
  view.offer.element.querySelector('[data-act="get"]').click();
  assert.deepEqual(asked.at(-1), ["download", { key: KEY }]);
  view.show(value([model()])); // an answer from before the download
  view.show(value([model(), copy({ state: "downloading", done: GB })], { offer: null }));
  assert.match(read(view.offer), /1 GB of 6 GB/);
  view.show(value([model(), copy({ state: "complete" })], { offer: null }));
  assert.deepEqual(asked.at(-1), ["switch", { key: KEY }]);
  clearTimeout(view.timer);
});

test("a dismissed offer stays away, whichever file it was about", () => {
  const view = new ModelsView(
    document.body.appendChild(document.createElement("div")),
    async () => {},
    () => {},
  );
  const found = findModel(withCopies([model()]), KEY);
  assert.equal(found.original, "any");
  view.offer.dismiss(found);
  view.show(value([model()]));
  assert.equal(view.offer.element.hidden, true);
  view.show(value([model({ choices: [choice("nf4", "transformers", 5)] })]));
  assert.equal(view.offer.element.hidden, true);
  localStorage.clear();
});

test("weights that are here are used in their own precision, although a GGUF file would be better", async () => {
  const asked = [];
  const act = async (...question) => void asked.push(question);
  const view = new ModelsView(document.body.appendChild(document.createElement("div")), act, () => {});
  view.show(value([model({ state: "complete" })], { offer: null }));
  view.element.querySelector('[data-act="use"]').click();
  assert.deepEqual(asked.at(-1), ["switch", { key: "any", precision: "nf4", context: null }]);
});

const PLAN = { weights: GB, kv_bytes: GB, working: 0, margin: 0, visitors: 4, usual: 8192, shares: [] };
const info = (more) => ({
  ...{ name: "Any", source: "any-Q4_K_M.gguf", precision: "Q4_K_M", device: "NVIDIA", context_length: 20_000 },
  ...{ parameters: 24e9, revision: "", chosen_because: "model_chosen_by_hand", engine: "llama.cpp", missing: {} },
  ...{ plan: { ...PLAN, gpu_layers: 32, ram_layers: 9, kv_type: "q8_0" }, notices: [], ...more },
});
const panel = (about) =>
  make(modelPanel({ state: "ready", card: "Any", info: about, description: "model_magistral", command: "run" }));
function make(nodes) {
  const element = document.createElement("div");
  element.append(...nodes);
  return element;
}

test("the panel says what runs a GGUF file, with how many layers on the GPU", () => {
  const shown = panel(info({}));
  const rows = Object.fromEntries(
    [...shown.querySelectorAll("dt")].map((term) => [term.textContent, term.nextElementSibling.textContent]),
  );
  assert.equal(rows.Source, "any-Q4_K_M.gguf");
  assert.equal(rows.Precision, "4-bit (Q4_K_M)");
  assert.equal(rows.Engine, "llama.cpp");
  assert.equal(rows["Layers on the GPU"], "32 of 41");
  assert.equal(rows["KV cache"], "8-bit (q8_0)");
  assert.match(shown.querySelector("dd [title]").title, /in advance/);
  assert.match(shown.textContent, /aren’t on the GPU stay in main memory/);
  const whole = panel(info({ plan: { ...PLAN, gpu_layers: 0, ram_layers: 0, kv_type: "f16" } }));
  assert.doesNotMatch(whole.textContent, /Layers on the GPU|main memory/);
  const other = panel(
    info({ engine: "transformers", plan: { ...PLAN, gpu_layers: null, ram_layers: 0, kv_type: "" } }),
  );
  assert.doesNotMatch(other.textContent, /Engine|8-bit/);
});

test("the command in a notice can be copied as it is", () => {
  const command = "pip install 'a>1' --index-url https://example.org/simple";
  const shown = panel(info({ notices: [{ key: "gpu_too_new", values: { card: "X", command } }] }));
  assert.equal(shown.querySelector(".machine-notice code").textContent, command);
  assert.equal(shown.querySelector(".machine-notice code").translate, false);
  assert.ok(shown.querySelector('.machine-notice [data-act="copy-command"]'));
  const unsupported = { key: "gguf_unsupported", values: { model: "Any", reason: "unknown architecture" } };
  const written = panel(info({ notices: [unsupported] }));
  assert.equal(written.querySelector(".machine-notice code").textContent, "pip install --upgrade xllamacpp");
  const none = panel(info({ notices: [{ key: "gguf_without_projector", values: { model: "Any" } }] }));
  assert.equal(none.querySelector(".machine-notice code"), null);
});
