// Draws one model of the list: what it needs, how fast and how good it is, and what can be done with it. It asks nothing itself.

import { make } from "./dom.js";
import { inRow, languageNames, sentence, short, t, unbroken } from "./i18n.js";
import {
  actionsFor,
  asFrom,
  benchmarksOf,
  bestChoice,
  choiceText,
  contextsUpTo,
  diskText,
  isCurrent,
  likelySource,
  nameOf,
} from "./model_facts.js";
import { precisionText } from "./model_precision.js";
import { drawWays } from "./model_ways.js";

/** @import { ChosenRun, ModelEntryValue, ModelsValue, ModelWay } from "./types.js" */

const CARDS = "https://huggingface.co/"; // where each repository has its model card

/** One model. Only changes are drawn again, so that a download does not disturb reading and choosing. */
export class ModelEntry {
  /** @param {(action: string, model: ModelEntryValue, chosen: ChosenRun) => void} act */
  constructor(act) {
    this.act = act;
    this.element = make("li", { class: "model-entry" });
    /** @type {ModelWay | null} */
    this.way = null; // that was chosen
    /** @type {number | null} */
    this.context = null;
    this.drawn = "";
    this.isOpen = false;
    this.isMoreOpen = false; // the rare ways
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
    const shown = asFrom(model, this.way?.repository ?? likelySource(model, current));
    const { done, seconds_left, seconds, on_disk, copies, ...steady } = shown;
    const states = (copies ?? []).map(({ key, state }) => [key, state]);
    const about = isCurrent(model, current) && current;
    const drawn = JSON.stringify([steady, states, about, current.state === "loading", this.way, this.context]);
    if (drawn !== this.drawn) this.draw(model, shown, current);
    this.drawn = drawn;
    if (this.disk) this.disk.textContent = diskText(shown) ?? "";
    if (this.bar) Object.assign(this.bar, { max: Math.max(shown.total, 1), value: shown.done });
  }

  /**
   * @param {ModelEntryValue} model
   * @param {ModelEntryValue} shown the same, as it comes from the source that is shown
   * @param {ModelsValue["current"]} current
   */
  draw(model, shown, current) {
    const focused = this.element.contains(document.activeElement)
      ? /** @type {HTMLElement} */ (document.activeElement).dataset.act
      : undefined;
    const heading = make("h4", { dir: "auto" }, nameOf(model));
    const isBegun = ["downloading", "paused", "partial"].includes(shown.state);
    this.bar = isBegun ? make("progress", { "aria-label": nameOf(model) }) : undefined;
    const isToTell = diskText(shown) !== null && (model.fits || shown.state !== "absent");
    this.disk = isToTell ? make("p", { class: "disk" }) : undefined;
    this.element.classList.toggle("current", isCurrent(model, current));
    this.element.replaceChildren(
      ...[
        make("div", { class: "head" }, heading, ...this.badges(model, current)),
        model.refusal ? make("p", { class: "refusal" }, sentence(model.refusal)) : this.facts(shown, current),
        this.disk,
        this.bar,
        this.benchmarks(model),
        shown.failure ? make("p", { class: "failure", role: "alert" }, sentence(shown.failure)) : null,
        this.buttons(shown, current),
        this.options(model, shown, current),
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
    if (isCurrent(model, current)) return [make("span", { class: "badge" }, t(`models_current_${current.state}`))];
    return model.best ? [make("span", { class: "badge" }, t("models_best"))] : [];
  }

  /**
   * The choice that was made, else the one that runs, else the one that would be taken.
   * @param {ModelEntryValue} shown
   * @param {ModelsValue["current"]} current
   */
  choice(shown, current) {
    const wanted = this.way?.precision ?? (shown.key === current.key ? current.precision : null);
    return shown.choices.find(({ precision }) => precision === wanted) ?? bestChoice(shown);
  }

  /**
   * @param {ModelEntryValue} shown
   * @param {ModelsValue["current"]} current
   */
  facts(shown, current) {
    const running = isCurrent(shown, current) ? current.precision : "";
    const text = choiceText(this.choice(shown, current)) || precisionText(shown.quantization || running);
    return text ? make("p", { class: "unbroken" }, unbroken(text)) : null;
  }

  /** @param {ModelEntryValue} model */
  benchmarks(model) {
    const found = benchmarksOf(model);
    const items = found.map(([name, score]) => make("li", {}, make("bdi", {}, name), " ", make("b", {}, score)));
    return items.length ? make("ul", { class: "benchmarks" }, ...items) : null;
  }

  /**
   * @param {ModelEntryValue} shown
   * @param {ModelsValue["current"]} current
   */
  buttons(shown, current) {
    const found = actionsFor(shown, current).map((name, index) => this.button(name, shown, current, index === 0));
    return found.length ? make("div", { class: "actions" }, ...found) : null;
  }

  /**
   * @param {string} name
   * @param {ModelEntryValue} shown
   * @param {ModelsValue["current"]} current
   * @param {boolean} isFirst
   */
  button(name, shown, current, isFirst) {
    const label = t(`models_${name}`);
    const button = make(
      "button",
      {
        type: "button",
        class: isFirst && name !== "remove" ? "do" : "quiet",
        data: { act: name },
        disabled: current.state === "loading" && (name === "use" || name === "unload"),
        "aria-label": `${label}: ${nameOf(shown)}`,
      },
      label,
    );
    button.addEventListener("click", () => this.act(name, shown, this.chosen(shown)));
    return button;
  }

  /**
   * A copy has its precision already.
   * @param {ModelEntryValue} shown
   * @returns {ChosenRun}
   */
  chosen({ original }) {
    return { precision: original ? null : (this.way?.precision ?? null), context: this.context };
  }

  /**
   * Ways, context and what else there is to know, collapsed: most people leave them to the app.
   * @param {ModelEntryValue} model
   * @param {ModelEntryValue} shown
   * @param {ModelsValue["current"]} current
   */
  options(model, shown, current) {
    if (model.key === "demo" || !model.repository) return null;
    const isInUse = shown.key === current.key;
    const details = make(
      "details",
      { class: "more", open: this.isOpen },
      make("summary", {}, t("models_options")),
      ...(model.fits && model.ways.length
        ? [this.ways(model, shown, current), this.contexts(model, shown, current)]
        : []),
      model.fits && isInUse && (this.way || this.context) ? this.button("use", shown, current, true) : null,
      this.about(model),
    );
    details.addEventListener("toggle", () => (this.isOpen = details.open));
    return details;
  }

  /**
   * @param {ModelEntryValue} model
   * @param {ModelEntryValue} shown
   * @param {ModelsValue["current"]} current
   */
  ways(model, shown, current) {
    return drawWays({
      model,
      shown,
      precision: this.choice(shown, current)?.precision,
      isOpen: this.isMoreOpen,
      toggle: (isOpen) => (this.isMoreOpen = isOpen),
      choose: (way) => {
        this.way = way;
        this.show(model, current);
      },
    });
  }

  /**
   * What fits differs by precision.
   * @param {ModelEntryValue} model
   * @param {ModelEntryValue} shown
   * @param {ModelsValue["current"]} current
   */
  contexts(model, shown, current) {
    const select = make("select", { data: { act: "context" } });
    const most = this.choice(shown, current)?.context ?? Math.max(...model.choices.map((each) => each.context));
    if (this.context) this.context = Math.min(this.context, most);
    select.append(make("option", { value: "" }, t("models_automatic")));
    for (const each of contextsUpTo(most))
      select.append(make("option", { value: String(each) }, t("turn_tokens", { count: each })));
    select.value = String(this.context ?? "");
    select.addEventListener("change", () => {
      this.context = Number(select.value) || null;
      this.show(model, current);
    });
    return make("label", { class: "context" }, make("span", {}, t("model_context")), select);
  }

  /** @param {ModelEntryValue} model */
  about({ parameters, license, repository, languages, benchmarks, ways }) {
    const size = parameters ? t("model_parameters", { count: short(parameters) }) : "";
    const facts = [size, license, ways.length ? "" : repository]; // the ways name it
    const source = make(
      "a",
      { href: CARDS + repository, target: "_blank", rel: "noopener noreferrer" },
      t("models_benchmark_source"),
    );
    return make(
      "div",
      { class: "small about" },
      make("p", {}, inRow(facts)),
      languages.length ? make("p", {}, make("strong", {}, t("models_languages")), " ", languageNames(languages)) : null,
      Object.keys(benchmarks).length ? make("p", {}, source) : null,
    );
  }
}
