// Custom instructions, and the whole system prompt as the model reads it, to view and, optionally, to edit.

import { make } from "./dom.js";
import { t } from "./i18n.js";
import { change, facts, settings } from "./settings.js";

/** @import { Act, PromptValue } from "./types.js" */

const DEBOUNCE_MS = 300; // after the last key before a request

export class PromptView {
  /**
   * `act("compose")` asks the server for the prompt with the current settings.
   * @param {HTMLElement} element
   * @param {Act} act
   */
  constructor(element, act) {
    this.act = act;
    /** @type {PromptValue | null} */
    this.value = null;
    this.made = ""; // the settings of the last request for the prompt
    this.instructions = make("textarea", {
      id: "instructions-text",
      rows: 3,
      dir: "auto",
      placeholder: t("instructions_placeholder"),
      "aria-describedby": "instructions-help",
      value: settings.value.instructions,
    });
    this.written(this.instructions, (text) => change({ instructions: text }));
    this.preview = make("div", {
      class: "prompt-text",
      tabIndex: 0,
      role: "group",
      "aria-label": t("system_prompt_heading"),
      dir: "auto",
    });
    this.field = make("textarea", {
      class: "prompt-edit",
      rows: 12,
      dir: "auto",
      hidden: true,
      "aria-label": t("system_prompt_label"),
      spellcheck: false,
    });
    this.written(this.field, (text) => this.edit(text));
    this.toggle = make("button", { type: "button", class: "quiet" }, t("system_prompt_edit"));
    this.toggle.addEventListener("click", () => this.editing(Boolean(this.field.hidden)));
    this.back = make("button", { type: "button", class: "quiet", hidden: true }, t("system_prompt_back"));
    this.back.addEventListener("click", () => {
      this.edit(null);
      this.field.value = this.value?.own ?? "";
      this.toggle.focus();
    });
    this.help = make("p", { class: "help" });
    this.about = make("p", { class: "help", id: "instructions-help" });
    this.warning = make("p", { class: "warning", role: "status", hidden: true });
    this.badge = make("span", { class: "badge", hidden: true }, t("system_prompt_edited"));
    const actions = make("div", { class: "actions" }, this.toggle, this.back);
    element.replaceChildren(
      make(
        "div",
        { class: "instructions", id: "instructions" },
        make("label", { class: "visually-hidden", htmlFor: "instructions-text" }, t("instructions_label")),
        this.about,
        this.instructions,
      ),
      make(
        "details",
        { class: "more", id: "system-prompt" },
        make("summary", {}, t("system_prompt_heading"), " ", this.badge),
        this.help,
        this.preview,
        this.field,
        actions,
      ),
      this.warning,
    );
    settings.follow(() => this.changed());
    facts.follow(() => this.changed());
  }

  /**
   * Show the prompt that the server composed.
   * @param {PromptValue | undefined} value
   */
  show(value) {
    if (!value?.marks) return;
    this.value = value;
    this.field.maxLength = this.instructions.maxLength = value.limit;
    const [begin, end] = value.marks.map((mark) => () => make("span", { class: "mark", dir: "ltr" }, mark));
    /** @type {(part: { text: string, reasoning: boolean }) => (HTMLElement | string)[]} */
    const drawn = ({ text, reasoning }) => (reasoning ? [begin(), make("em", {}, text), end()] : [text]);
    const parts = value.parts.flatMap(drawn);
    this.preview.replaceChildren(...(parts.length ? parts : [make("em", {}, t("system_prompt_empty"))]));
    this.about.textContent = t(value.own ? "instructions_help" : "instructions_help_plain");
    this.warning.hidden = value.thinks;
    this.warning.textContent = value.thinks
      ? ""
      : t("system_prompt_no_marks", { begin: value.marks[0], end: value.marks[1] });
    this.changed();
  }

  get edited() {
    return settings.value.system_prompts[this.value?.card ?? ""] ?? null;
  }

  /**
   * @param {string | null} text
   */
  edit(text) {
    if (!this.value) return;
    const { card, own } = this.value;
    const { [card]: _, ...others } = settings.value.system_prompts;
    const prompts = text === null || text === own ? others : { ...others, [card]: text };
    change({ system_prompts: prompts });
  }

  /**
   * @param {boolean} on
   */
  editing(on) {
    this.field.hidden = !on;
    this.preview.hidden = on;
    this.toggle.textContent = t(on ? "system_prompt_done" : "system_prompt_edit");
    this.help.textContent = t(on ? "system_prompt_edit_help" : "system_prompt_help");
    if (!on) return;
    this.field.value = this.edited ?? this.value?.own ?? "";
    this.field.focus();
    this.field.setSelectionRange(0, 0);
  }

  /** Request the prompt again if its settings have changed. */
  changed() {
    this.badge.hidden = this.back.hidden = this.edited === null;
    if (!this.help.textContent) this.help.textContent = t("system_prompt_help");
    const off = settings.value.params.reasoning_budget === 0; // then the prompt does not show how to reason
    const made = JSON.stringify([settings.value.instructions, this.edited, off, facts.value?.card]);
    if (!this.value || made === this.made) return;
    const first = this.made === "" && settings.value.instructions === "" && this.edited === null && !off;
    this.made = made;
    if (!first) this.act("compose");
  }

  /**
   * Save the text at every pause in typing, and immediately on blur.
   * @param {HTMLTextAreaElement} field
   * @param {(text: string) => void} take
   */
  written(field, take) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let pause;
    const now = () => {
      clearTimeout(pause);
      pause = undefined;
      take(field.value);
    };
    field.addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(now, DEBOUNCE_MS);
    });
    field.addEventListener("change", () => pause && now());
    field.addEventListener("blur", () => pause && now());
  }
}
