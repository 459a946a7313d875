// Offers the best model for this machine above the composer while the demo model runs, and shows its download there.

import { above } from "./composer.js";
import { make } from "./dom.js";
import { bytes, duration, inRow, sentence, t, unbroken } from "./i18n.js";
import { bestChoice, choiceText, diskText, downloadTexts, nameOf, progressText } from "./model_facts.js";

/** @import { Message, ModelEntryValue, ModelsValue } from "./types.js" */

const DISMISSED_KEY = "magistral-ui-offer-dismissed";

/**
 * What people want to know before downloading gigabytes: a line about running the model, and others about getting it.
 * @param {ModelEntryValue} model
 * @param {ModelsValue} value
 */
export function offerFacts(model, { disk_free: free }) {
  const run = choiceText(bestChoice(model));
  if (model.state === "complete") return [run];
  const [whole, copy] = model.state === "partial" ? [diskText(model)] : downloadTexts(model);
  const time = model.seconds ? t("models_download_time", { time: duration(model.seconds) }) : null;
  return [run, inRow([whole, time, t("models_disk_free", { size: bytes(free) })]), copy].filter(Boolean);
}

export class ModelOffer {
  /** @param {(action: string, model: ModelEntryValue) => void} act */
  constructor(act) {
    this.act = act;
    this.element = make("section", { class: "model-offer", hidden: true, "aria-labelledby": "model-offer-heading" });
    this.drawn = "";
    this.facts = make("div", { class: "facts" });
  }

  /**
   * Show `model`, or nothing if there is none to offer or the offer was dismissed in this browser.
   * @param {ModelEntryValue | undefined} model
   * @param {ModelsValue} value
   * @param {boolean} isWanted whether its download was begun here
   */
  show(model, value, isWanted) {
    const shown = model && (isWanted || dismissed() !== (model.original ?? model.key)) ? model : undefined;
    this.element.hidden = !shown;
    if (!shown) return;
    if (!this.element.isConnected) above(this.element);
    const failure = shown.failure ?? value.failure;
    const drawn = JSON.stringify([shown.key, shown.state, isWanted, failure]);
    if (drawn !== this.drawn) this.draw(shown, isWanted, failure);
    this.drawn = drawn;
    const isRunning = shown.state === "downloading" || shown.state === "paused";
    const lines = isRunning ? [progressText(shown)] : offerFacts(shown, value);
    this.facts.replaceChildren(...lines.map((line) => make("p", { class: "unbroken" }, unbroken(line ?? ""))));
    if (isRunning && this.bar) Object.assign(this.bar, { max: Math.max(shown.total, 1), value: shown.done });
  }

  /**
   * @param {ModelEntryValue} model
   * @param {boolean} isWanted
   * @param {Message | null} failure why it could not be downloaded or loaded
   */
  draw(model, isWanted, failure) {
    const hadFocus = this.element.contains(document.activeElement);
    const isRunning = model.state === "downloading" || model.state === "paused";
    this.bar = isRunning ? make("progress", { "aria-label": nameOf(model) }) : undefined;
    /** @type {Record<string, [string, string]>} */
    const actions = {
      downloading: ["pause", "models_pause"],
      paused: ["resume", "models_resume"],
      complete: ["use", "models_use"],
    };
    const [name, key] = actions[model.state] ?? ["get", "models_download_and_use"];
    const button = make("button", { type: "button", class: "do", data: { act: name } }, t(key));
    button.addEventListener("click", () => this.act(name, model));
    const away = { "aria-label": t("turn_dismiss"), title: t("turn_dismiss") };
    const dismiss = make("button", { type: "button", class: "quiet dismiss", data: { act: "dismiss" }, ...away }, "✕");
    dismiss.addEventListener("click", () => this.dismiss(model));
    const options = make("button", { type: "button", class: "quiet", data: { act: "options" } }, t("models_options"));
    options.addEventListener("click", () => this.act("options", model));
    const title = isRunning
      ? `${nameOf(model)}: ${t(`models_state_${model.state}`)}`
      : t("models_offer", { name: nameOf(model) });
    this.element.replaceChildren(
      make("div", {}, make("strong", { id: "model-offer-heading" }, title), this.facts),
      make("div", { class: "actions" }, button, options),
      ...(isWanted ? [] : [dismiss]),
      ...(this.bar ? [this.bar] : []),
      ...(failure && !isRunning ? [make("p", { class: "failure", role: "alert" }, sentence(failure))] : []),
    );
    if (hadFocus) button.focus({ preventScroll: true });
  }

  /** @param {ModelEntryValue} model */
  dismiss(model) {
    try {
      localStorage.setItem(DISMISSED_KEY, model.original ?? model.key);
    } catch {
      // Switched off: it is gone until the page is loaded again.
    }
    this.element.hidden = true;
    document.querySelector(/** @type {"textarea"} */ ("#box textarea"))?.focus();
  }
}

function dismissed() {
  try {
    return localStorage.getItem(DISMISSED_KEY);
  } catch {
    return null;
  }
}
