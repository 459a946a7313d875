// How much the model thinks before it answers: a button at the composer that names it, and the menu to choose from.

import { make } from "./dom.js";
import { number, t } from "./i18n.js";
import { Popup } from "./menu.js";
import { card, choose, clamp, facts, settings, values } from "./settings.js";

/** @import { ThinkingLevel } from "./types.js" */

const BUDGET = "reasoning_budget";
const CUSTOM_TOKENS = 2_048; // what a budget of one's own begins with
/** @type {ThinkingLevel[]} */
const LEVELS = [
  { name: "off", budget: 0 },
  { name: "short", budget: 512 },
  { name: "medium", budget: 4_096 },
  { name: "full", budget: null },
];

/** The bounds of a budget of one's own: 0 is what "off" is for. */
function ownBounds() {
  const parameter = card().parameters.find(({ name }) => name === BUDGET);
  if (!parameter) throw new Error("there is no reasoning budget");
  return { ...parameter, low: 1, optional: false };
}

/** The level that is chosen; `custom` for any other budget. */
export function chosenLevel() {
  const budget = values()[BUDGET];
  const is = (/** @type {ThinkingLevel} */ level) =>
    level.budget ? clamp(ownBounds(), level.budget) === budget : level.budget === budget;
  return LEVELS.find(is) ?? { name: "custom", budget };
}

/** @param {ThinkingLevel} level */
const label = ({ name, budget }) => (name === "custom" ? t("turn_tokens", { count: budget }) : t(`thinking_${name}`));

/**
 * Why the server cannot do that; undefined where it can.
 * @param {ThinkingLevel} level
 */
function lacking({ budget }) {
  const key = budget === 0 ? card().missing.without_reasoning : budget && card().missing[BUDGET];
  return key ? t(key) : undefined;
}

/** @param {ThinkingLevel} level */
function note({ name, budget }) {
  if (name === "custom") return "";
  if (budget === 0) return t("thinking_off_note");
  return budget ? t("turn_tokens", { count: budget }) : t("parameter_reasoning_budget_empty");
}

export class ThinkingControl extends Popup {
  /** @param {HTMLElement} parent */
  constructor(parent) {
    super(parent, { class: "menu thinking-menu", role: "dialog", "aria-label": t("thinking_label") });
    this.opener = make("button", {
      type: "button",
      id: "thinking",
      class: "quiet",
      hidden: true,
      "aria-haspopup": "dialog",
      "aria-expanded": "false",
    });
    this.opens(this.opener, () => this.draw());
    parent.prepend(this.opener);
    this.tokens = make("input", { type: "number", min: 1, step: 1, inputMode: "numeric", autocomplete: "off" });
    this.tokens.placeholder = number(CUSTOM_TOKENS);
    this.tokens.setAttribute("aria-label", t("thinking_custom_label"));
    this.tokens.addEventListener("change", () => this.typed());
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // it would press the button, which has the focus then
      if (event.target === this.tokens) this.typed();
      this.close();
    });
    facts.follow(() => this.refresh());
    settings.follow(() => this.refresh());
  }

  /**
   * @override
   * @returns {HTMLInputElement | null}
   */
  first() {
    return this.element.querySelector("input:checked");
  }

  refresh() {
    if (!facts.value) return;
    this.opener.hidden = false;
    this.opener.textContent = t("thinking_now", { level: label(chosenLevel()) });
    if (this.isOpen) this.check();
  }

  draw() {
    const custom = { name: "custom", budget: CUSTOM_TOKENS };
    this.tokens.max = String(ownBounds().high);
    const group = make(
      "div",
      { role: "radiogroup", "aria-label": t("thinking_label") },
      ...LEVELS.map((level) => this.row(level)),
      this.row(custom, this.tokens),
    );
    this.radios = /** @type {HTMLInputElement[]} */ ([...group.querySelectorAll("input[type=radio]")]);
    this.check();
    return [make("h2", { "aria-hidden": "true" }, t("thinking_label")), group];
  }

  /**
   * @param {ThinkingLevel} level
   * @param {HTMLInputElement} [field]
   */
  row(level, field) {
    const why = lacking(level);
    const id = `thinking-why-${level.name}`;
    const radio = make("input", { type: "radio", name: "thinking", value: level.name, disabled: Boolean(why) });
    if (why) radio.setAttribute("aria-describedby", id);
    radio.addEventListener("change", () => this.pick(level));
    const choice = make("label", { class: "check" }, radio, make("span", {}, t(`thinking_${level.name}`)));
    const told = note(level);
    if (told) choice.append(make("small", {}, told));
    // A pointer has chosen with one press; the arrow keys may still be on their way.
    choice.addEventListener("click", ({ detail }) => detail && !field && !why && setTimeout(() => this.close()));
    if (field) field.disabled = Boolean(why);
    return make(
      "div",
      { class: why ? "missing" : "" },
      make("div", { class: "row" }, choice, field),
      why ? make("p", { class: "missing-why", id }, why) : null,
    );
  }

  /** @param {ThinkingLevel} level */
  pick({ name, budget }) {
    if (name !== "custom") return choose(BUDGET, budget);
    this.tokens.value ||= String(values()[BUDGET] || budget);
    this.typed();
    this.tokens.select();
  }

  typed() {
    if (!this.tokens.value) return this.check();
    choose(BUDGET, clamp(ownBounds(), Number(this.tokens.value)));
  }

  /** Show in the menu what is chosen. */
  check() {
    const { name, budget } = chosenLevel();
    for (const radio of this.radios ?? []) radio.checked = radio.value === name;
    if (this.tokens !== document.activeElement || name === "custom") {
      this.tokens.value = name === "custom" ? String(budget) : "";
    }
  }
}
