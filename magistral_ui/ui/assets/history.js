// Shows the list of conversations, to search, open, rename, pin and delete them; the server keeps them.

import { make, place, writing } from "./dom.js";
import { HistoryEntry } from "./history_entry.js";
import { sentence, t } from "./i18n.js";
import { exportFile, importFile } from "./import_export.js";
import { Menu } from "./menu.js";

/** @import { Act, ConversationSummary, HistoryValue, MenuItem, Message, Ticket } from "./types.js" */

const PAGE_SIZE = 60; // entries to render at a time: a long list costs no more than a short one
const DEBOUNCE_MS = 200; // after the last key before a search
const POLL_MS = 3_000; // between two refreshes while a reply is being written in another conversation
const DAY = 86_400_000;

export class HistoryView {
  /**
   * @param {HTMLElement} element
   * @param {Act} act
   */
  constructor(element, act) {
    this.act = act;
    this.drawn = PAGE_SIZE;
    this.query = "";
    /** @type {ConversationSummary[]} */
    this.entries = [];
    /** @type {string | null} */
    this.current = null; // the conversation that is shown
    /** @type {Set<string>} */
    this.writing = new Set(); // those in which a reply is being written
    this.used = ""; // the last ticket that was used
    this.server = "";
    this.read = 0; // when the server read the shown list
    /** @type {{ entry: ConversationSummary, shown: boolean } | null} */
    this.gone = null;
    /** @type {string | null} */
    this.troubled = null;
    /** @type {Map<string, HistoryEntry>} */
    this.views = new Map(); // conversation id → its entry in the list
    /** @type {Map<string, { heading: HTMLElement, list: HTMLElement }>} */
    this.groups = new Map(); // group → its heading and its rows
    this.field = make("input", {
      type: "search",
      class: "find",
      hidden: true,
      placeholder: t("history_search"),
      "aria-label": t("history_search"),
    });
    this.field.addEventListener("input", () => this.later(DEBOUNCE_MS));
    this.list = make("div", { class: "entries", role: "group", "aria-label": t("page_history") });
    this.more = make("div", { class: "more" });
    this.status = make("p", { class: "told", role: "status" });
    this.undone = make("div", { class: "undone", hidden: true });
    this.sure = make("div", { class: "forgetting", hidden: true });
    this.all = make(
      "button",
      { type: "button", class: "quiet", "aria-label": t("history_all"), title: t("history_all") },
      "⋯",
    );
    this.file = make("input", { type: "file", accept: ".json,application/json", hidden: true, tabIndex: -1 });
    this.file.addEventListener(
      "change",
      () => this.file.files?.length && this.ask("bring", { size: this.file.files[0].size }),
    );
    this.notKept = make("p", { class: "not-kept", hidden: true }, t("history_not_kept"));
    this.none = make("p", { class: "none", hidden: true }, t("history_empty"));
    const head = make(
      "div",
      { class: "finding" },
      make("div", { class: "row" }, this.field, this.none, this.all),
      this.status,
      this.sure,
    );
    element.replaceChildren(head, this.list, this.more, this.undone, this.notKept, this.file);
    new Menu(element, t("history_all")).attach(this.all, () => this.items());
    this.trouble = make("div", { class: "trouble", role: "status", hidden: true });
    document.getElementById("composer")?.prepend(this.trouble);
    new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && this.grow()).observe(this.more);
    // The transcript reports which conversation is shown, and when it has changed.
    addEventListener("conversation", ({ detail }) => {
      this.current = detail.id;
      this.mark();
      this.later(0);
    });
  }

  /** @param {number} time */
  later(time) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.ask("refresh"), time);
  }

  /**
   * @param {string} name
   * @param {object} data
   */
  ask(name, data = {}) {
    this.act(name, { query: this.field.value.trim(), ...data });
  }

  /**
   * `{server, begun, read, entries, complete, writing, query, trouble, durable, removed?, forgotten?, ticket?, refused?}`, see ui/history_panel.py.
   * @param {HistoryValue | undefined} value
   */
  show(value) {
    if (!value) return;
    this.showTrouble(value.trouble);
    this.notKept.hidden = value.durable || Boolean(value.trouble);
    if (value.removed) this.showUndo(value.removed);
    if (value.forgotten !== undefined)
      this.status.textContent = t(value.forgotten ? "history_forgotten" : "history_forgotten_later");
    if (value.ticket) this.exchange(value.ticket);
    if (value.refused) this.fileEnds(sentence(value.refused));
    if (value.query !== this.field.value.trim()) return; // a later search is running
    if (value.entries === null) return void this.later(0); // only a search returns search results
    if (this.overlaps(value)) this.later(0); // a later refresh settles which of the two is right
    if (this.isLate(value)) return;
    this.server = value.server;
    this.read = value.read;
    if ((value.query || this.query) && !value.refused) this.tellFound(value.query, value.entries, value.complete);
    this.query = value.query;
    this.writing = new Set(value.writing);
    this.entries = value.entries;
    this.draw();
    this.none.hidden = Boolean(value.entries.length || this.query || this.field === document.activeElement);
    this.field.hidden = !this.none.hidden; // nothing to search in
    if (value.writing.some((id) => id !== this.current)) this.later(POLL_MS);
  }

  /**
   * Whether this response may have been read before the shown one: responses can overtake each other.
   * @param {HistoryValue} value
   */
  overlaps({ server, begun }) {
    return server === this.server && begun < this.read;
  }

  /**
   * Whether this response was certainly read before the shown one.
   * @param {HistoryValue} value
   */
  isLate({ server, read }) {
    return server === this.server && read < this.read;
  }

  /**
   * @param {string} query
   * @param {ConversationSummary[]} entries
   * @param {boolean} complete
   */
  tellFound(query, entries, complete) {
    const key = complete ? "history_found" : "history_found_some";
    this.status.textContent = query ? t(key, { count: entries.length }) : "";
  }

  /**
   * Export or import the file that the ticket is for.
   * @param {Ticket} ticket
   */
  async exchange(ticket) {
    if (ticket.token === this.used) return; // the same value may be shown twice
    this.used = ticket.token;
    this.status.textContent = t("history_file_waiting");
    try {
      const { imported, failure } = await (ticket.does === "save"
        ? exportFile(ticket)
        : importFile(ticket, /** @type {FileList} */ (this.file.files)[0]));
      this.fileEnds(
        failure ? sentence(failure) : imported !== undefined ? t("history_brought", { count: imported }) : "",
      );
    } catch {
      this.fileEnds(t("history_file_lost"));
    }
  }

  /**
   * Show the result, and let the same file be chosen again.
   * @param {string} text
   */
  fileEnds(text) {
    this.status.textContent = text;
    this.file.value = "";
    this.later(0);
  }

  /** Render what has changed. Entries keep their elements, so that unfolding, focus and scroll position stay. */
  draw() {
    this.mark();
    if (this.list.querySelector("form")) return; // a title is being edited; the rest is rendered after that
    const shown = this.entries.slice(0, this.drawn);
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const at =
      focused && this.list.contains(focused)
        ? [...this.list.querySelectorAll("li")].indexOf(/** @type {HTMLLIElement} */ (focused.closest("li")))
        : -1;
    const before = this.views;
    this.views = new Map(shown.map((entry) => [entry.id, before.get(entry.id) ?? new HistoryEntry(entry, this)]));
    /** @type {Map<string, Element[]>} */
    const groups = new Map();
    for (const entry of shown) {
      const view = /** @type {HistoryEntry} */ (this.views.get(entry.id));
      view.show(entry);
      const key = this.groupOf(entry);
      groups.set(key, [...(groups.get(key) ?? []), view.element]);
    }
    const parts = [...groups].flatMap(([key, rows]) => {
      const { heading, list } = this.group(key);
      place(list, rows);
      return key ? [heading, list] : [list];
    });
    place(this.list, parts);
    if (focused && at >= 0 && document.activeElement !== focused) this.refocus(focused, at);
    this.more.hidden = this.drawn >= this.entries.length;
    this.mark();
  }

  /**
   * Restore the focus after a change: to the same element, or if it is gone, to the one in its place.
   * @param {HTMLElement} focused
   * @param {number} at
   */
  refocus(focused, at) {
    if (focused.isConnected) focused.focus({ preventScroll: true });
    else [...this.views.values()].at(Math.min(at, this.views.size - 1))?.focus();
  }

  /** @param {string} key */
  group(key) {
    const known = this.groups.get(key) ?? { heading: make("h2", {}, key && t(key)), list: make("ul", {}) };
    this.groups.set(key, known);
    return known;
  }

  /** The reader has reached the end of the rendered entries. */
  grow() {
    if (this.drawn >= this.entries.length) return;
    this.drawn += PAGE_SIZE;
    this.draw();
  }

  /** @param {ConversationSummary} entry */
  groupOf({ pinned, changed }) {
    if (this.query) return "";
    if (pinned) return "history_pinned";
    const today = new Date().setHours(0, 0, 0, 0);
    if (changed * 1000 >= today) return "history_today";
    return changed * 1000 >= today - 6 * DAY ? "history_week" : "history_earlier";
  }

  mark() {
    for (const [id, view] of this.views) view.mark(id === this.current, this.writing.has(id));
  }

  /** @param {string} id */
  open(id) {
    this.ask("open", { id });
    document.getElementById("history")?.dispatchEvent(new Event("chosen"));
  }

  /**
   * Show the new title at once, and send it to the server.
   * @param {string} id
   * @param {string} title
   */
  rename(id, title) {
    for (const entry of this.entries) if (entry.id === id) entry.title = title;
    this.ask("rename", { id, title });
  }

  /** @param {ConversationSummary} entry */
  remove(entry) {
    this.gone = { entry, shown: entry.id === this.current };
    this.ask("remove", { id: entry.id });
  }

  /** @param {string} id */
  showUndo(id) {
    const { entry, shown } = this.gone ?? {};
    if (!entry || entry.id !== id) return;
    const undo = make("button", { type: "button", class: "quiet strong" }, t("history_undo"));
    undo.addEventListener("click", () => {
      this.undone.hidden = true;
      this.ask("restore", { id, shown });
    });
    this.undone.replaceChildren(
      make("p", { role: "status", dir: "auto" }, t("history_removed", { title: entry.title || t("history_untitled") })),
      undo,
    );
    this.undone.hidden = false;
    if (!writing()) undo.focus();
    clearTimeout(this.undoing);
    this.undoing = setTimeout(() => (this.undone.hidden = true), 50_000);
  }

  /**
   * What to do with all conversations.
   * @returns {(MenuItem | null)[]}
   */
  items() {
    const all = this.entries.length || this.query;
    const item = (/** @type {string} */ key, /** @type {() => void} */ act) => ({ label: t(key), act });
    const bring = item("history_bring", () => this.file.click());
    if (!all) return [bring];
    return [
      item("history_save_all", () => this.ask("save", { format: "json" })),
      bring,
      null,
      item("history_forget", () => this.showForget()),
    ];
  }

  showForget() {
    /** @type {(key: string, style: string, act?: () => void) => HTMLButtonElement} */
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
    this.sure.replaceChildren(
      make("p", {}, t("history_forget_help")),
      make("div", { class: "actions" }, cancel, forget),
    );
    this.sure.hidden = false;
    cancel.focus();
  }

  /** @param {Message | null} trouble */
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
