// The details of a reply: model, parameters and prompt, and the button that regenerates it with exactly the same.

import { make } from "./dom.js";
import { number, seconds, t } from "./i18n.js";
import { Popup } from "./menu.js";
import { precisionText } from "./model_precision.js";

/** @import { ReplyValue, Source } from "./types.js" */

export class ReplyDetails extends Popup {
  /** @param {HTMLElement} parent */
  constructor(parent) {
    super(parent, { class: "details", role: "dialog", "aria-labelledby": "details-heading" });
  }

  /**
   * @override
   * @returns {HTMLElement | null}
   */
  first() {
    return this.element.querySelector("button");
  }

  /**
   * Open at `button` for a finished reply `turn`; `replay()` regenerates it.
   * @param {HTMLElement} button
   * @param {ReplyValue} turn
   * @param {Source | null | undefined} source
   * @param {() => void} replay
   */
  show(button, turn, source, replay) {
    const close = make("button", { type: "button", class: "quiet" }, t("page_close"));
    close.addEventListener("click", () => this.close());
    const groups = [this.model(turn, source), this.sampling(turn), [...this.cost(turn), ...this.prompt(turn, source)]];
    const row = (/** @type {string[]} */ [key, value]) => [make("dt", {}, t(key)), make("dd", { dir: "auto" }, value)];
    const lists = groups.filter((rows) => rows.length).map((rows) => make("dl", {}, ...rows.flatMap(row)));
    const texts = [
      ["details_system_prompt", source?.system_prompt ?? ""],
      ["details_instructions", source?.instructions ?? ""],
    ];
    this.open(
      button,
      [
        make("header", {}, make("h3", { id: "details-heading" }, t("details_heading")), close),
        ...lists,
        ...texts
          .filter(([, text]) => text)
          .flatMap(([key, text]) => [make("h4", {}, t(key)), make("p", { class: "details-text", dir: "auto" }, text)]),
        turn.may_replay && source ? this.again(source, replay) : null,
      ].filter((each) => each !== null),
    );
  }

  /**
   * @param {ReplyValue} turn
   * @param {Source | null | undefined} source
   */
  model({ model }, source) {
    /** @type {Record<string, any>} */
    const facts = source ?? { model };
    const names = {
      model: "model_name",
      source: "model_source",
      revision: "model_revision",
      precision: "model_precision",
      device: "model_device",
      engine: "details_engine",
    };
    return Object.entries(names)
      .filter(([name]) => facts[name])
      .map(([name, key]) => [key, name === "precision" ? precisionText(facts[name]) : facts[name]]);
  }

  /** @param {ReplyValue} turn */
  sampling({ params }) {
    const found = Object.entries(params ?? {}).filter(([, value]) => value !== null);
    /** @param {[string, number | null]} entry */
    const row = ([name, value]) => {
      if (name === "reasoning_budget" && value === 0) return ["thinking_label", t("thinking_off")];
      // A seed is an identifier, not an amount, so its digits are not grouped.
      return [`parameter_${name}`, name === "seed" ? String(value) : number(value ?? 0)];
    };
    return found.map(row);
  }

  /** @param {ReplyValue} turn */
  cost({ usage }) {
    const rows = [];
    const prompt = usage.prompt_estimated ? "details_prompt_estimated" : "details_prompt_tokens";
    if (usage.prompt_tokens)
      rows.push(["details_prompt", t(prompt, { count: usage.prompt_tokens, reused: usage.reused_tokens })]);
    if (usage.completion_tokens) rows.push(["details_reply", t("turn_tokens", { count: usage.completion_tokens })]);
    if (usage.total_seconds) rows.push(["details_time", t("turn_seconds", { seconds: seconds(usage.total_seconds) })]);
    return rows;
  }

  /**
   * @param {ReplyValue} turn
   * @param {Source | null | undefined} source
   */
  prompt({ edited }, source) {
    const rows = [];
    if (source && !source.keep_reasoning) rows.push(["details_earlier", t("details_left_out")]);
    if (edited) rows.push(["details_begun", t("reasoning_edited")]);
    return rows;
  }

  /**
   * @param {Source} source
   * @param {() => void} replay
   */
  again(source, replay) {
    const button = make(
      "button",
      { type: "button", class: "replay", disabled: document.body.classList.contains("answering") },
      t("details_replay"),
    );
    button.addEventListener("click", () => {
      this.close();
      replay();
    });
    const details = make(
      "p",
      { class: source.here ? "" : "warn" },
      t(source.here ? "details_replay_help" : "details_replay_elsewhere"),
    );
    return make("footer", {}, button, details);
  }
}
