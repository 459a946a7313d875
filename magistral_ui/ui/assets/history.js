// Shows the list of conversations: found, opened, named, pinned, deleted; the server keeps them.

import { make } from "./dom.js";
import { EntryView } from "./entry.js";
import { bring, save } from "./files.js";
import { Menu } from "./menu.js";
import { sentence, t } from "./strings.js";

const STEP = 60; // entries that are drawn at a time: a long list costs no more than a short one
const PAUSE = 200; // ms after the last key before a search is asked for
const WATCH = 3_000; // ms between two looks while a reply is being written in another conversation
const DAY = 86_400_000;

export class HistoryView {
  constructor(element, act) {
    Object.assign(this, { element, act, drawn: 0, entries: [], query: "", current: null });
    this.field = make("input", { type: "search", class: "find", hidden: true, placeholder: t("history_search"), "aria-label": t("history_search") });
    this.field.addEventListener("input", () => this.later(PAUSE));
    this.list = make("div", { class: "entries", role: "group", "aria-label": t("page_history") });
    this.more = make("div", { class: "more" });
    this.told = make("p", { class: "told", role: "status" });
    this.undone = make("div", { class: "undone", hidden: true });
    this.sure = make("div", { class: "forgetting", hidden: true });
    this.all = make("button", { type: "button", class: "quiet", "aria-label": t("history_all"), title: t("history_all") }, "⋯");
    this.file = make("input", { type: "file", accept: ".json,application/json", hidden: true, tabIndex: -1 });
    this.file.addEventListener("change", () => this.file.files.length && this.ask("bring", { size: this.file.files[0].size }));
    this.notKept = make("p", { class: "not-kept", hidden: true }, t("history_not_kept"));
    this.none = make("p", { class: "none", hidden: true }, t("history_empty"));
    const head = make("div", { class: "finding" }, make("div", { class: "row" }, this.field, this.none, this.all), this.told, this.sure);
    element.replaceChildren(head, this.list, this.more, this.undone, this.notKept, this.file);
    new Menu(element, t("history_all")).attach(this.all, () => this.items());
    this.trouble = make("div", { class: "trouble", role: "status", hidden: true });
    document.getElementById("composer")?.prepend(this.trouble);
    new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && this.grow()).observe(this.more);
    // The transcript tells which conversation is shown, and when something has changed in it.
    addEventListener("conversation", ({ detail }) => {
      this.current = detail.id;
      this.mark();
      this.later(0);
    });
  }

  later(time) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.ask("refresh"), time);
  }

  ask(name, data = {}) {
    this.act(name, { query: this.field.value.trim(), ...data });
  }

  /** `{entries, complete, writing, query, trouble, durable, removed?, forgotten?, ticket?, refused?}`, see ui/history_panel.py. */
  show(value) {
    if (!value) return;
    this.showTrouble(value.trouble);
    this.notKept.hidden = value.durable || Boolean(value.trouble);
    if (value.removed) this.showUndo(value.removed);
    if (value.forgotten !== undefined) this.told.textContent = t(value.forgotten ? "history_forgotten" : "history_forgotten_later");
    if (value.ticket) this.exchange(value.ticket);
    if (value.refused) this.fileEnds(sentence(value.refused));
    if (value.query !== this.field.value.trim()) return; // a later one is on its way
    if (value.entries === null) return this.later(0); // what is found is only told by a search of its own
    if ((value.query || this.query) && !value.refused) this.tellFound(value);
    this.query = value.query;
    this.writing = new Set(value.writing);
    const same = JSON.stringify(value.entries) === this.known;
    if (!same && !this.list.querySelector("form")) this.draw(value.entries);
    this.mark();
    this.none.hidden = Boolean(value.entries.length || this.query || this.field === document.activeElement);
    this.field.hidden = !this.none.hidden; // nothing to search in
    if (value.writing.some((id) => id !== this.current)) this.later(WATCH);
  }

  tellFound({ query, entries, complete }) {
    const key = complete ? "history_found" : "history_found_some";
    this.told.textContent = query ? t(key, { count: entries.length }) : "";
  }

  /** Fetch or bring the file that was asked for. */
  async exchange(ticket) {
    if (ticket.token === this.used) return; // the same value may be shown twice
    this.used = ticket.token;
    this.told.textContent = t("history_file_waiting");
    try {
      const { imported, failure } = await (ticket.does === "save" ? save(ticket) : bring(ticket, this.file.files[0]));
      this.fileEnds(failure ? sentence(failure) : imported !== undefined ? t("history_brought", { count: imported }) : "");
    } catch {
      this.fileEnds(t("history_file_lost"));
    }
  }

  /** Tell how it went, and let the same file be chosen again. */
  fileEnds(told) {
    this.told.textContent = told;
    this.file.value = "";
    this.later(0);
  }

  draw(entries) {
    this.known = JSON.stringify(entries);
    const focused = document.activeElement?.closest?.("[data-entry]")?.dataset;
    const count = Math.max(STEP, this.drawn);
    Object.assign(this, { entries, drawn: 0, group: null, views: new Map() });
    this.list.replaceChildren();
    this.grow(count);
    if (focused) this.views.get(focused.entry)?.focus();
  }

  grow(count = STEP) {
    for (const entry of this.entries.slice(this.drawn, this.drawn + count)) {
      const key = this.groupOf(entry);
      if (key !== this.group) {
        this.group = key;
        this.rows = make("ul", {});
        if (key) this.list.append(make("h2", {}, t(key)));
        this.list.append(this.rows);
      }
      const view = new EntryView(entry, this);
      this.views.set(entry.id, view);
      this.rows.append(view.element);
    }
    this.drawn = Math.min(this.entries.length, this.drawn + count);
    this.more.hidden = this.drawn === this.entries.length;
    this.mark();
  }

  groupOf({ pinned, changed }) {
    if (this.query) return "";
    if (pinned) return "history_pinned";
    const today = new Date().setHours(0, 0, 0, 0);
    if (changed * 1000 >= today) return "history_today";
    return changed * 1000 >= today - 6 * DAY ? "history_week" : "history_earlier";
  }

  mark() {
    for (const [id, view] of this.views ?? []) view.mark(id === this.current, this.writing?.has(id));
  }

  open(id) {
    this.ask("open_conversation", { id });
    document.getElementById("history").dispatchEvent(new Event("chosen"));
  }

  remove(entry) {
    this.gone = { entry, shown: entry.id === this.current };
    this.ask("remove", { id: entry.id });
  }

  showUndo(id) {
    const { entry, shown } = this.gone ?? {};
    if (entry?.id !== id) return;
    const undo = make("button", { type: "button", class: "quiet strong" }, t("history_undo"));
    undo.addEventListener("click", () => {
      this.undone.hidden = true;
      this.ask("restore", { id, shown });
    });
    this.undone.replaceChildren(make("p", { role: "status", dir: "auto" }, t("history_removed", { title: entry.title || t("history_untitled") })), undo);
    this.undone.hidden = false;
    undo.focus();
    clearTimeout(this.undoing);
    this.undoing = setTimeout(() => (this.undone.hidden = true), 50_000);
  }

  /** What to do with all conversations. */
  items() {
    const all = this.entries.length || this.query;
    const item = (key, act) => ({ label: t(key), act });
    const bring = item("history_bring", () => this.file.click());
    if (!all) return [bring];
    return [item("history_save_all", () => this.ask("save", { format: "json" })), bring, null, item("history_forget", () => this.showForget())];
  }

  showForget() {
    const button = (key, style, act) => {
      const made = make("button", { type: "button", class: style }, t(key));
      made.addEventListener("click", () => {
        this.sure.hidden = true;
        this.all.focus();
        act?.();
      });
      return made;
    };
    const cancel = button("turn_edit_cancel", "quiet");
    const forget = button("history_forget_sure", "quiet danger", () => {
      this.field.value = "";
      this.undone.hidden = true;
      this.ask("forget");
    });
    this.sure.replaceChildren(make("p", {}, t("history_forget_help")), make("div", { class: "actions" }, cancel, forget));
    this.sure.hidden = false;
    cancel.focus();
  }

  showTrouble(trouble) {
    const key = trouble?.key ?? null;
    if (key === this.troubled) return;
    this.troubled = key;
    this.trouble.hidden = !trouble;
    if (!trouble) return;
    const dismiss = make("button", { type: "button", class: "quiet" }, t("turn_dismiss"));
    dismiss.addEventListener("click", () => (this.trouble.hidden = true));
    this.trouble.replaceChildren(make("p", {}, sentence(trouble)), dismiss);
  }
}
