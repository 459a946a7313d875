// The editor for reasoning, in the accordion: the visitor changes it and lets the model continue it, or answer from it.

import { make } from "./dom.js";
import { t } from "./i18n.js";

/** @import { ReasoningView } from "./reasoning.js" */

export class ReasoningEditor {
  /**
   * An editor in a ReasoningView `view`; `send(text, closed)` resumes from the text.
   * @param {ReasoningView} view
   * @param {(text: string, closed: boolean) => void} send
   */
  constructor(view, send) {
    this.view = view;
    this.send = send;
    this.field = make("textarea", { class: "edit", dir: "auto", "aria-label": t("reasoning_edit_label") });
    /** @type {HTMLFormElement | null} */
    this.form = null;
    /** @type {HTMLElement | null} */
    this.opener = null; // the button that opened it, which gets the focus back
    /** @type {string | null} */
    this.draft = null; // unsent changes, kept until the reply leaves the page
  }

  get isOpen() {
    return Boolean(this.form?.isConnected);
  }

  /**
   * @param {string} text
   * @param {HTMLElement} opener
   */
  open(text, opener) {
    if (this.isOpen) return void this.field.focus();
    this.opener = opener;
    this.field = make("textarea", { class: "edit", dir: "auto", "aria-label": t("reasoning_edit_label") });
    this.field.value = this.draft ?? text;
    const help = make("p", { class: "edit-help", id: "reasoning-edit-help" }, t("reasoning_edit_help"));
    this.field.setAttribute("aria-describedby", help.id);
    /** @type {(key: string, type: string, name: string) => HTMLButtonElement} */
    const button = (key, type, name) => make("button", { type, class: `quiet ${name}` }, t(key));
    const cancel = button("turn_edit_cancel", "button", "");
    const answer = button("reasoning_answer_from", "button", "strong");
    const think = button("reasoning_think_on", "submit", "strong");
    const form = make(
      "form",
      { class: "rethinking" },
      this.field,
      help,
      make("div", { class: "actions" }, cancel, answer, think),
    );
    cancel.addEventListener("click", () => this.close());
    answer.addEventListener("click", () => this.send(this.field.value, true));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(this.field.value, false);
    });
    this.field.addEventListener("input", () => {
      this.draft = this.field.value;
      for (const each of [answer, think]) each.disabled = !this.draft.trim();
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") this.close();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    this.form = form;
    this.view.replaceText(form);
    this.field.focus({ preventScroll: true });
    this.field.setSelectionRange(this.field.value.length, this.field.value.length);
    this.field.scrollTop = this.field.scrollHeight;
    form.scrollIntoView({ block: "nearest" });
  }

  /** Show the reasoning again; unsent changes are kept for the next time. */
  close() {
    if (!this.isOpen) return;
    const inside = this.form?.contains(document.activeElement);
    this.view.replaceText(null);
    if (inside) this.opener?.focus({ preventScroll: true });
  }
}
