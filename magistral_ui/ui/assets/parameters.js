// The controls for the sampling parameters, built from the table that the server sends: common ones first, the rest folded.

import { lack, make } from "./dom.js";
import { has, number, t } from "./i18n.js";
import { PresetsView } from "./presets.js";
import { choose, clamp, facts, measured, settings, values } from "./settings.js";

/** @import { PanelValue, Parameter } from "./types.js" */

const SLIDER_STEPS = 240; // positions of a logarithmic slider

export class ParametersView {
  /** @param {HTMLElement} element */
  constructor(element) {
    /** @type {Control[]} */
    this.controls = [];
    this.drawn = ""; // the facts
    this.element = element;
    this.presets = new PresetsView();
    this.more = make("summary", {});
    facts.follow((value) => this.build(value));
    settings.follow(() => this.refresh());
    measured.follow(() => this.refresh());
  }

  /** @param {PanelValue | undefined} value */
  show(value) {
    const drawn = JSON.stringify(value);
    // Rebuilding would lose what is being typed, so do it only if the facts have changed.
    if (!value?.parameters || drawn === this.drawn) return;
    this.drawn = drawn;
    facts.set(value);
  }

  /** @param {PanelValue} value */
  build({ parameters, own, missing }) {
    this.controls = parameters.map((parameter) => new Control(parameter, own[parameter.name], missing[parameter.name]));
    const common = this.controls.filter((control) => control.parameter.common);
    const rare = this.controls.filter((control) => !control.parameter.common);
    const open = this.element.querySelector("details")?.open ?? false;
    const folded = make(
      "details",
      { class: "more", id: "more-parameters", open },
      this.more,
      ...rare.map((each) => each.element),
    );
    this.element.replaceChildren(this.presets.element, ...common.map((each) => each.element), folded);
    this.refresh();
  }

  refresh() {
    if (!this.controls.length) return;
    const now = values();
    for (const control of this.controls) control.show(now[control.parameter.name]);
    const changed = this.controls.filter((control) => !control.parameter.common && control.changed).length;
    this.more.textContent = changed ? t("parameters_more_changed", { count: changed }) : t("parameters_more");
  }
}

/** A label, a number, possibly a slider, a help text, and a button to reset it to the card's own value. */
class Control {
  /**
   * `lacking` is the key of the reason why the model server does not support the parameter.
   * @param {Parameter} parameter
   * @param {number | null} own
   * @param {string | undefined} lacking
   */
  constructor(parameter, own, lacking) {
    this.parameter = parameter;
    this.own = own;
    this.changed = false;
    const { name, low, high, integer, optional } = parameter;
    const id = `parameter-${name.replaceAll("_", "-")}`;
    const label = t(`parameter_${name}`);
    const empty = has(`parameter_${name}_empty`) ? t(`parameter_${name}_empty`) : "";
    this.number = make("input", {
      type: "number",
      id: `${id}-number`,
      min: low,
      max: high,
      step: integer ? 1 : "any",
      placeholder: empty,
      inputMode: integer ? "numeric" : "decimal",
      "aria-describedby": `${id}-help`,
      autocomplete: "off",
    });
    this.number.addEventListener("change", () => this.typed());
    this.back = make("button", { type: "button", class: "back", hidden: true });
    this.back.addEventListener("click", () => {
      choose(name, null);
      this.number.focus();
    });
    if (!optional) this.slider = this.makeSlider(label);
    this.note = make("p", { class: "note", hidden: true });
    this.element = make(
      "div",
      { class: "parameter", id },
      make("div", { class: "row" }, make("label", { htmlFor: `${id}-number` }, label), this.back, this.number),
      this.slider,
      make("p", { class: "help", id: `${id}-help` }, t(`parameter_${name}_help`)),
      this.note,
    );
    if (lacking) lack(this.element, t(lacking));
  }

  /** @param {string} label */
  makeSlider(label) {
    const { low, high, step, logarithmic } = this.parameter;
    const bounds = logarithmic ? { min: 0, max: SLIDER_STEPS, step: 1 } : { min: low, max: high, step };
    const slider = make("input", { type: "range", ...bounds, "aria-label": t("parameter_slider", { name: label }) });
    slider.addEventListener("input", () => choose(this.parameter.name, this.fromSlider(Number(slider.value))));
    return slider;
  }

  typed() {
    const { name, optional } = this.parameter;
    const text = this.number.value.trim();
    // An empty field of a parameter that must have a value gets the card's own.
    const value = text === "" ? (optional ? null : this.own) : clamp(this.parameter, Number(text));
    choose(name, value);
    this.number.value = String(values()[name] ?? "");
  }

  /** @param {number} position */
  fromSlider(position) {
    const { low, high, logarithmic } = this.parameter;
    if (!logarithmic) return Number(position.toFixed(4));
    if (position >= SLIDER_STEPS) return high;
    const value = low * (high / low) ** (position / SLIDER_STEPS);
    // Two digits are as precise as a hand on a slider.
    return clamp(this.parameter, Number(value.toPrecision(value < 100 ? 2 : value < 10_000 ? 3 : 2)));
  }

  /** @param {number} value */
  toSlider(value) {
    const { low, high, logarithmic } = this.parameter;
    return logarithmic ? Math.round((SLIDER_STEPS * Math.log(value / low)) / Math.log(high / low)) : value;
  }

  /**
   * @param {HTMLInputElement} slider
   * @param {number} value
   */
  showSlider(slider, value) {
    if (slider !== document.activeElement) slider.value = String(this.toSlider(value)); // not while it is being moved
    slider.setAttribute("aria-valuetext", number(value));
    const [at, low, high] = [slider.value, slider.min, slider.max].map(Number);
    slider.style.setProperty("--filled", `${(100 * (at - low)) / (high - low)}%`);
  }

  /** @param {number | null} value */
  show(value) {
    this.changed = value !== this.own;
    this.element.classList.toggle("changed", this.changed);
    if (this.number !== document.activeElement) this.number.value = String(value ?? ""); // not while someone is typing in it
    if (this.slider) this.showSlider(this.slider, value ?? this.parameter.low);
    const own = this.own === null ? t("parameter_none") : number(this.own);
    this.back.hidden = !this.changed;
    this.back.textContent = own;
    this.back.title = t("parameter_back", { value: own });
    this.back.setAttribute("aria-label", this.back.title);
    const room = this.parameter.name === "max_tokens" && measured.value?.limit ? measured.value.room : null;
    // The default means the maximum, so only a visitor's own number that is too large deserves a hint.
    this.note.hidden = room === null || !this.changed || (value ?? 0) <= room;
    if (!this.note.hidden) this.note.textContent = t("parameter_room", { count: room });
  }
}
