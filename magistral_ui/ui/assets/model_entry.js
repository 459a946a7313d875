// Draws one model of the list: what it needs, how fast and how good it is, and what can be done with it. It asks nothing itself.

import { make } from "./dom.js";
import { bytes, duration, number, sentence, short, t } from "./i18n.js";

/** @import { ModelChoice, ModelEntryValue, ModelsValue } from "./types.js" */

// Names of benchmarks are the same in every language.
const BENCHMARKS = {
  aime25: "AIME25",
  aime24: "AIME24",
  gpqa_diamond: "GPQA Diamond",
  livecodebench: "LiveCodeBench",
};
const MIN_CONTEXT_OFFERED = 8_192; // tokens

/**
 * Sorted for reading: the model in use, then what can run here, then the rest.
 * @param {ModelsValue} value
 */
export function ordered({ models, current }) {
  const rank = (/** @type {ModelEntryValue} */ each) =>
    each.key === current.key ? 0 : each.fits ? (each.best ? 1 : 2) : 3;
  return [...models].sort((one, other) => rank(one) - rank(other));
}

/**
 * The name; the demo model has one in each language.
 * @param {ModelEntryValue} model
 */
export const nameOf = (model) => (model.key === "demo" ? t("model_demo_badge") : model.name);

/**
 * The choice that is taken unless another is made: the one whose pace is known, which is the best here.
 * @param {ModelEntryValue} model
 * @returns {ModelChoice | undefined}
 */
export const bestChoice = ({ choices }) => choices.find(({ pace }) => pace !== null) ?? choices[0];

/** @param {ModelChoice | undefined} choice */
export function paceText(choice) {
  if (!choice?.pace) return null;
  const rate = number(choice.pace < 10 ? Math.round(choice.pace * 10) / 10 : Math.round(choice.pace));
  return t(choice.measured ? "models_pace_measured" : "models_pace", { rate });
}

/**
 * How far a download is, such as “3 GB of 18 GB · about 4 minutes left”.
 * @param {ModelEntryValue} model
 */
export function progressText({ done, total, seconds_left: left }) {
  const facts = [t("loading_bytes", { done: bytes(done), total: bytes(total) })];
  if (left !== null) facts.push(t("loading_left", { time: duration(left) }));
  return facts.join(" · ");
}

/**
 * What is on this computer, and how much of it; null for what belongs to the app or the operator.
 * @param {ModelEntryValue} model
 */
export function diskText(model) {
  const { state, on_disk: held, download } = model;
  if (state === "local") return null;
  if (state === "absent") return t("models_download_size", { size: bytes(download) });
  if (state === "complete") return t("models_on_disk", { size: bytes(held) });
  return `${t(`models_state_${state}`)}: ${progressText(model)}`;
}

/** @param {ModelEntryValue} model */
export const benchmarksOf = ({ benchmarks }) =>
  Object.entries(BENCHMARKS)
    .filter(([key]) => benchmarks[key] !== undefined)
    .map(([key, name]) => /** @type {[string, string]} */ ([name, number(Math.round(benchmarks[key] * 10) / 10)]));

/**
 * The actions that make sense for a model in this state, the most wanted first.
 * @param {ModelEntryValue} model
 * @param {ModelsValue["current"]} current
 */
export function actionsFor({ key, state, fits }, current) {
  const isCurrent = key === current.key;
  const found = [];
  if (isCurrent && current.state === "ready" && key !== "demo") found.push("unload");
  if (!isCurrent && fits && (state === "complete" || state === "local")) found.push("use");
  if (fits && state === "absent") found.push("download");
  if (state === "downloading") found.push("pause");
  if (fits && (state === "partial" || state === "paused")) found.push("resume");
  if (!isCurrent && ["partial", "paused", "complete"].includes(state)) found.push("remove");
  return found;
}

/**
 * The context lengths to choose from, up to what fits.
 * @param {number} most
 */
export function contextsUpTo(most) {
  const found = [];
  for (let tokens = MIN_CONTEXT_OFFERED; tokens < most; tokens *= 2) found.push(tokens);
  return [...found, most];
}

/** One model. Only what has changed is drawn again, so that a download disturbs nobody who reads or chooses. */
export class ModelEntry {
  /** @param {(action: string, model: ModelEntryValue, options: { precision: string | null, context: number | null }) => void} act */
  constructor(act) {
    this.act = act;
    this.element = make("li", { class: "model-entry" });
    this.chosen = { precision: /** @type {string | null} */ (null), context: /** @type {number | null} */ (null) };
    this.drawn = "";
    this.isOpen = false;
    /** @type {HTMLProgressElement | undefined} */
    this.bar = undefined;
    /** @type {HTMLElement | undefined} */
    this.disk = undefined;
  }

  /**
   * @param {ModelEntryValue} model
   * @param {ModelsValue["current"]} current
   */
  show(model, current) {
    const { done, seconds_left, seconds, on_disk, ...steady } = model;
    const drawn = JSON.stringify([steady, model.key === current.key && current, current.state === "loading"]);
    if (drawn !== this.drawn) this.draw(model, current);
    this.drawn = drawn;
    if (this.disk) this.disk.textContent = diskText(model) ?? "";
    if (this.bar) Object.assign(this.bar, { max: Math.max(model.total, 1), value: model.done });
  }

  /**
   * @param {ModelEntryValue} model
   * @param {ModelsValue["current"]} current
   */
  draw(model, current) {
    const focused = this.element.contains(document.activeElement)
      ? /** @type {HTMLElement} */ (document.activeElement).dataset.act
      : undefined;
    const heading = make("h4", { dir: "auto" }, nameOf(model));
    const isRunning = model.state === "downloading" || model.state === "paused";
    this.bar = isRunning ? make("progress", { "aria-label": nameOf(model) }) : undefined;
    this.disk = diskText(model) === null ? undefined : make("p", { class: "disk" });
    this.element.classList.toggle("current", model.key === current.key);
    this.element.replaceChildren(
      ...[
        make("div", { class: "head" }, heading, ...this.badges(model, current)),
        model.refusal ? make("p", { class: "refusal" }, sentence(model.refusal)) : this.facts(model),
        this.disk,
        this.bar,
        this.benchmarks(model),
        model.failure ? make("p", { class: "failure", role: "alert" }, sentence(model.failure)) : null,
        this.buttons(model, current),
        this.options(model, current),
      ].filter((each) => each != null),
    );
    /** @type {HTMLElement | null} */
    const again =
      this.element.querySelector(`[data-act="${focused}"]`) ?? this.element.querySelector("button, summary");
    if (focused) again?.focus({ preventScroll: true });
  }

  /**
   * @param {ModelEntryValue} model
   * @param {ModelsValue["current"]} current
   */
  badges(model, current) {
    if (model.key === current.key) return [make("span", { class: "badge" }, t(`models_current_${current.state}`))];
    return model.best ? [make("span", { class: "badge" }, t("models_best"))] : [];
  }

  /** @param {ModelEntryValue} model */
  facts(model) {
    const choice = model.choices.find(({ precision }) => precision === this.chosen.precision) ?? bestChoice(model);
    const told = [choice?.needs ? t("models_memory", { size: bytes(choice.needs) }) : null, paceText(choice)];
    const text = told.filter((each) => each !== null).join(" · ");
    return text ? make("p", {}, text) : null;
  }

  /** @param {ModelEntryValue} model */
  benchmarks(model) {
    const found = benchmarksOf(model);
    const items = found.map(([name, score]) => make("li", {}, make("bdi", {}, name), " ", make("b", {}, score)));
    return items.length ? make("ul", { class: "benchmarks" }, ...items) : null;
  }

  /**
   * @param {ModelEntryValue} model
   * @param {ModelsValue["current"]} current
   */
  buttons(model, current) {
    const found = actionsFor(model, current).map((name, index) => this.button(name, model, current, index === 0));
    return found.length ? make("div", { class: "actions" }, ...found) : null;
  }

  /**
   * @param {string} name
   * @param {ModelEntryValue} model
   * @param {ModelsValue["current"]} current
   * @param {boolean} isFirst
   */
  button(name, model, current, isFirst) {
    const label = t(`models_${name}`);
    const button = make(
      "button",
      {
        type: "button",
        class: isFirst && name !== "remove" ? "do" : "quiet",
        data: { act: name },
        disabled: current.state === "loading" && (name === "use" || name === "unload"),
        "aria-label": `${label}: ${nameOf(model)}`,
      },
      label,
    );
    button.addEventListener("click", () => this.act(name, model, this.chosen));
    return button;
  }

  /**
   * Precision and context, folded: most people leave them to the app.
   * @param {ModelEntryValue} model
   * @param {ModelsValue["current"]} current
   */
  options(model, current) {
    if (!model.fits || model.key === "demo" || !model.choices.length) return null;
    const isCurrent = model.key === current.key;
    const precision = this.select("precision", [
      ["", t("models_automatic")],
      ...model.choices.map(
        (each) => /** @type {[string, string]} */ ([each.precision, `${each.precision} · ${bytes(each.weights)}`]),
      ),
    ]);
    const most = Math.max(...model.choices.map((each) => each.context));
    const context = this.select("context", [
      ["", t("models_automatic")],
      ...contextsUpTo(most).map(
        (each) => /** @type {[string, string]} */ ([String(each), t("turn_tokens", { count: each })]),
      ),
    ]);
    const facts = [
      model.parameters ? t("model_parameters", { count: short(model.parameters) }) : "",
      model.license,
      model.repository,
    ];
    const details = make(
      "details",
      { class: "more", open: this.isOpen },
      make("summary", {}, t("models_options")),
      make("label", {}, make("span", {}, t("model_precision")), precision),
      make("label", {}, make("span", {}, t("model_context")), context),
      make("p", { class: "small", dir: "auto" }, facts.filter(Boolean).join(" · ")),
      isCurrent ? this.button("use", model, current, true) : null,
    );
    details.addEventListener("toggle", () => (this.isOpen = details.open));
    return details;
  }

  /**
   * @param {"precision" | "context"} name
   * @param {[string, string][]} options
   */
  select(name, options) {
    const select = make("select", { data: { act: name } });
    for (const [value, label] of options) select.append(make("option", { value }, label));
    select.value = String(this.chosen[name] ?? "");
    select.addEventListener("change", () => {
      if (name === "precision") this.chosen.precision = select.value || null;
      else this.chosen.context = Number(select.value) || null;
    });
    return select;
  }
}
