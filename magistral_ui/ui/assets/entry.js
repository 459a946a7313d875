// Shows one conversation of the list: its title to open it, and a row of actions that unfolds below.

import { make } from "./dom.js";
import { t } from "./strings.js";

const FORMATS = [["html", "HTML"], ["markdown", "Markdown"], ["json", "JSON"]]; // names, the same in every language

export class EntryView {
  /** `list` is told what was asked for: `open`, `remove`, `ask`. */
  constructor(entry, list) {
    Object.assign(this, { entry, list });
    const title = entry.title || t("history_untitled");
    this.name = make("bdi", {}, title);
    const excerpt = entry.excerpt ? make("span", { class: "excerpt", dir: "auto" }, entry.excerpt) : null;
    this.writing = make("span", { class: "writing", hidden: true, role: "img", "aria-label": t("history_writing") });
    this.open = make("button", { type: "button", class: "open-conversation", title }, this.writing, make("span", { class: "title" }, this.name), excerpt);
    this.open.addEventListener("click", () => list.open(entry.id));
    const help = t("history_actions", { title });
    this.unfold = make("button", { type: "button", class: "unfold", "aria-expanded": "false", "aria-label": help, title: help }, "⋯");
    this.unfold.addEventListener("click", () => this.fold(!this.actions.hidden));
    this.actions = make("div", { class: "actions", hidden: true });
    this.element = make("li", { data: { entry: entry.id } }, make("div", { class: "row" }, this.open, this.unfold), this.actions);
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.actions.hidden) return;
      event.preventDefault();
      this.fold(true);
      this.unfold.focus();
    });
  }

  focus() {
    this.open.focus({ preventScroll: true });
  }

  mark(current, writing) {
    this.element.classList.toggle("current", current);
    if (current) this.open.setAttribute("aria-current", "true");
    else this.open.removeAttribute("aria-current");
    this.writing.hidden = !writing;
  }

  fold(folded) {
    this.actions.hidden = folded;
    this.unfold.setAttribute("aria-expanded", String(!folded));
    if (folded || this.actions.children.length) return;
    const { id, pinned } = this.entry;
    const button = (key, act) => {
      const made = make("button", { type: "button", class: "quiet" }, t(key));
      made.addEventListener("click", act);
      return made;
    };
    const saving = (format, name) => {
      const made = make("button", { type: "button", class: "quiet", "aria-label": t("history_save", { format: name }) }, name);
      made.addEventListener("click", () => this.list.ask("save", { id, format }));
      return made;
    };
    this.actions.append(
      button(pinned ? "history_unpin" : "history_pin", () => this.list.ask("pin", { id, pinned: !pinned })),
      button("history_rename", () => this.rename()),
      button("history_remove", () => this.list.remove(this.entry)),
      make("div", { class: "saving" }, make("span", {}, t("history_save_as")), ...FORMATS.map(([format, name]) => saving(format, name))),
    );
  }

  rename() {
    const field = make("input", { type: "text", value: this.entry.title, maxLength: 80, dir: "auto", "aria-label": t("history_name") });
    const form = make("form", { class: "naming" }, field);
    let ended = false; // leaving the field takes it away, and taking it away leaves it
    const end = (focus = true) => {
      if (ended) return;
      ended = true;
      form.replaceWith(this.open);
      if (focus) this.open.focus();
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const title = field.value.trim();
      if (title) {
        this.name.textContent = title;
        this.list.ask("rename", { id: this.entry.id, title });
      }
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
