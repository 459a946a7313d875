// The presets: a click sets the parameters to their values; the visitor's own presets are stored in this browser.

import { make } from "./dom.js";
import { t } from "./i18n.js";
import {
  card,
  choosePreset,
  clamp,
  deletePreset,
  facts,
  MAX_NAME_LENGTH,
  ownPresets,
  savePreset,
  settings,
  values,
} from "./settings.js";

/** @import { Parameters } from "./types.js" */

export class PresetsView {
  constructor() {
    this.chips = make("div", { class: "chips", role: "radiogroup", "aria-label": t("presets_label") });
    this.help = make("span", { class: "preset-help" });
    this.save = make("button", { type: "button", class: "quiet", id: "preset-save" }, t("preset_save"));
    this.save.addEventListener("click", () => this.ask());
    this.remove = make("button", { type: "button", class: "quiet", id: "preset-delete" }, t("preset_delete"));
    this.remove.addEventListener("click", () => {
      const name = this.current?.name;
      if (name) deletePreset(name);
      this.chips.querySelector("input")?.focus();
    });
    this.foot = make("div", { class: "preset-foot" }, this.help, this.save, this.remove);
    this.element = make("div", { class: "presets", id: "presets" }, this.chips, this.foot);
    facts.follow(() => this.build());
    ownPresets.follow(() => this.build());
    settings.follow(() => this.refresh());
  }

  /** @returns {{ label: string, help: string, values: Parameters, name?: string, key?: string }[]} */
  get all() {
    const { presets, recommended } = card();
    const help = (/** @type {string} */ key) =>
      t(key === "own" && !recommended ? "preset_own_help_server" : `preset_${key}_help`);
    const known = presets.map(({ key, values }) => ({ key, label: t(`preset_${key}`), help: help(key), values }));
    return [
      ...known,
      ...ownPresets.value.map(({ name, values }) => ({ name, label: name, help: t("preset_mine_help"), values })),
    ];
  }

  build() {
    if (!facts.value) return;
    this.shown = this.all.map((preset) => {
      const radio = make("input", { type: "radio", name: "preset", class: "visually-hidden" });
      radio.addEventListener("change", () => choosePreset(preset.values));
      return { ...preset, radio };
    });
    this.chips.replaceChildren(
      ...this.shown.map(({ radio, label, help }) =>
        make("label", { class: "chip", title: help }, radio, make("bdi", {}, label)),
      ),
    );
    this.refresh();
  }

  /** The preset that the current values match, if any; if two match, the one that was clicked. */
  refresh() {
    if (!this.shown) return;
    const now = values();
    const fits = (/** @type {{values: Parameters}} */ { values: wanted }) =>
      card().parameters.every(
        (each) => each.name === "seed" || clamp(each, wanted[each.name] ?? null) === now[each.name],
      );
    const matching = this.shown.filter(fits);
    this.current = matching.find((each) => each.radio.checked) ?? matching[0] ?? null;
    for (const each of this.shown) each.radio.checked = each === this.current;
    this.help.textContent = this.current ? this.current.help : t("preset_none_help");
    this.save.hidden = Boolean(this.current);
    this.remove.hidden = !this.current?.name;
  }

  /** Ask for the name of a new preset. */
  ask() {
    const field = make("input", {
      type: "text",
      maxLength: MAX_NAME_LENGTH,
      "aria-label": t("preset_name"),
      placeholder: t("preset_name"),
      dir: "auto",
      autocomplete: "off",
    });
    const cancel = make("button", { type: "button", class: "quiet" }, t("preset_cancel"));
    const form = make(
      "form",
      { class: "preset-name" },
      field,
      make("button", { type: "submit", class: "quiet strong" }, t("preset_keep")),
      cancel,
    );
    const end = (/** @type {HTMLElement | undefined} */ focus) => {
      form.replaceWith(this.foot);
      focus?.focus();
    };
    cancel.addEventListener("click", () => end(this.save));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation(); // Escape must not close the drawer, too
      end(this.save);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = field.value.trim();
      if (!name) return field.focus();
      savePreset(name);
      end(this.current?.radio);
    });
    this.foot.replaceWith(form);
    field.focus();
  }
}
