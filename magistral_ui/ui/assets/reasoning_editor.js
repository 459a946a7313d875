// Reasoning in the reader's own words: a field in the accordion, to think on from its end or to answer from it.

import { make } from "./dom.js";
import { t } from "./i18n.js";

export class ReasoningEditor {
  /** Over a ReasoningView `view`; `send(text, closed)` goes on from the text. */
  constructor(view, send) {
    Object.assign(this, { view, send });
    this.draft = null; // what was written and not sent, kept until the reply leaves the page
  }

  get isOpen() {
    return Boolean(this.form?.isConnected);
  }

  open(text, opener) {
    if (this.isOpen) return this.field.focus();
    this.opener = opener;
    this.field = make("textarea", {
      class: "edit",
      value: this.draft ?? text,
      dir: "auto",
      "aria-label": t("reasoning_edit_label"),
    });
    const help = make("p", { class: "edit-help", id: "reasoning-edit-help" }, t("reasoning_edit_help"));
    this.field.setAttribute("aria-describedby", help.id);
    const button = (key, type, name) => make("button", { type, class: `quiet ${name}` }, t(key));
    const cancel = button("turn_edit_cancel", "button", "");
    const answer = button("reasoning_answer_from", "button", "strong");
    const think = button("reasoning_think_on", "submit", "strong");
    this.form = make(
      "form",
      { class: "rethinking" },
      this.field,
      help,
      make("div", { class: "actions" }, cancel, answer, think),
    );
    cancel.addEventListener("click", () => this.close());
    answer.addEventListener("click", () => this.send(this.field.value, true));
    this.form.addEventListener("submit", (event) => {
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
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
    this.view.replaceText(this.form);
    this.field.focus({ preventScroll: true });
    this.field.setSelectionRange(this.field.value.length, this.field.value.length);
    this.field.scrollTop = this.field.scrollHeight;
    this.form.scrollIntoView({ block: "nearest" });
  }

  /** Show the reasoning again; what was written stays for the next time. */
  close() {
    if (!this.isOpen) return;
    const inside = this.form.contains(document.activeElement);
    this.view.replaceText(null);
    if (inside) this.opener?.focus({ preventScroll: true });
  }
}
