// One conversation in the list: its title, which opens it, and a row of actions below.

import { make } from "./dom.js";
import { t } from "./i18n.js";

/** @import { HistoryView } from "./history.js" */
/** @import { ConversationSummary } from "./types.js" */

const EXPORT_FORMATS = [
  ["html", "HTML"],
  ["markdown", "Markdown"],
  ["json", "JSON"],
]; // file formats, with names that are the same in every language

export class HistoryEntry {
  /**
   * `list` handles the actions `open`, `rename`, `remove` and `ask`, and renders again (`draw`) once no title is being edited.
   * @param {ConversationSummary} entry
   * @param {HistoryView} list
   */
  constructor(entry, list) {
    this.entry = entry;
    /** @type {HTMLButtonElement | undefined} */
    this.pin = undefined;
    this.list = list;
    this.name = make("span", { class: "title", dir: "auto" });
    this.excerpt = make("span", { class: "excerpt", dir: "auto" });
    this.writing = make("span", { class: "writing", hidden: true, role: "img", "aria-label": t("history_writing") });
    this.open = make("button", { type: "button", class: "open-conversation" }, this.writing, this.name);
    this.open.addEventListener("click", () => list.open(entry.id));
    this.unfold = make("button", { type: "button", class: "unfold", "aria-expanded": "false" }, "⋯");
    this.unfold.addEventListener("click", () => this.fold(!this.actions.hidden));
    this.actions = make("div", { class: "actions", hidden: true });
    this.element = make(
      "li",
      { data: { entry: entry.id } },
      make("div", { class: "row" }, this.open, this.unfold),
      this.actions,
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.actions.hidden) return;
      event.preventDefault();
      this.fold(true);
      this.unfold.focus();
    });
    this.show(entry);
  }

  /**
   * Show what the server knows; the elements stay, and with them focus and selection.
   * @param {ConversationSummary} entry
   */
  show(entry) {
    this.entry = entry;
    const title = entry.title || t("history_untitled");
    this.open.title = title;
    if (this.name.textContent !== title) this.name.textContent = title; // so that a selection in it stays
    this.unfold.title = t("history_actions", { title });
    this.unfold.setAttribute("aria-label", this.unfold.title);
    this.excerpt.textContent = entry.excerpt ?? "";
    if (entry.excerpt) this.open.append(this.excerpt);
    else this.excerpt.remove();
    if (this.pin) this.pin.textContent = t(entry.pinned ? "history_unpin" : "history_pin");
  }

  focus() {
    this.open.focus({ preventScroll: true });
  }

  /**
   * @param {boolean} current
   * @param {boolean | undefined} writing
   */
  mark(current, writing) {
    this.element.classList.toggle("current", current);
    if (current) this.open.setAttribute("aria-current", "true");
    else this.open.removeAttribute("aria-current");
    this.writing.hidden = !writing;
  }

  /** @param {boolean} folded */
  fold(folded) {
    this.actions.hidden = folded;
    this.unfold.setAttribute("aria-expanded", String(!folded));
    if (folded || this.actions.children.length) return;
    const { id } = this.entry;
    const button = (/** @type {string} */ key, /** @type {() => void} */ act) => {
      const made = make("button", { type: "button", class: "quiet" }, t(key));
      made.addEventListener("click", act);
      return made;
    };
    const saving = (/** @type {string} */ format, /** @type {string} */ name) => {
      const made = make(
        "button",
        { type: "button", class: "quiet", "aria-label": t("history_save", { format: name }) },
        name,
      );
      made.addEventListener("click", () => this.list.ask("save", { id, format }));
      return made;
    };
    this.pin = button(this.entry.pinned ? "history_unpin" : "history_pin", () => {
      this.fold(true);
      this.focus();
      this.list.ask("pin", { id, pinned: !this.entry.pinned });
    });
    this.actions.append(
      this.pin,
      button("history_rename", () => this.rename()),
      button("history_remove", () => this.list.remove(this.entry)),
      make(
        "div",
        { class: "saving" },
        make("span", {}, t("history_save_as")),
        ...EXPORT_FORMATS.map(([format, name]) => saving(format, name)),
      ),
    );
  }

  rename() {
    const field = make("input", {
      type: "text",
      value: this.entry.title,
      maxLength: 80,
      dir: "auto",
      "aria-label": t("history_name"),
    });
    const form = make("form", { class: "naming" }, field);
    let ended = false; // removing the field also blurs it, which would end the editing twice
    const end = (focus = true) => {
      if (ended) return;
      ended = true;
      form.replaceWith(this.open);
      if (focus) this.open.focus();
      this.list.draw(); // updates that have arrived meanwhile
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const title = field.value.trim();
      if (title) this.list.rename(this.entry.id, title);
      if (title) this.fold(true);
      end();
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.preventDefault();
      event.stopPropagation();
      end();
    });
    field.addEventListener("blur", () => end(false));
    this.open.replaceWith(form);
    field.select();
  }
}
