// A user message: plain text and thumbnails; it can be edited, answered, copied and deleted.

import { BranchView } from "./branches.js";
import { actionButton, copy, make } from "./dom.js";
import { t } from "./i18n.js";

/** @import { Branch, Hands, MenuItem, Surroundings, UserValue } from "./types.js" */

export class UserTurn {
  /**
   * @param {UserValue} value
   * @param {Hands} hands
   */
  constructor({ id, text, pictures }, { act, choose, menu, toast }) {
    this.id = id;
    this.text = text;
    this.act = act;
    this.toast = toast;
    /** @type {Branch | null | undefined} */
    this.branch = undefined;
    this.branches = new BranchView(choose);
    this.edit = actionButton("edit", "turn_edit");
    this.edit.addEventListener("click", () => this.beginEdit());
    this.answer = actionButton("answer", "turn_answer");
    this.answer.hidden = true;
    this.answer.addEventListener("click", () => act("answer", { message: id }));
    this.more = actionButton("more", "turn_more", { icon: "⋯" });
    menu.attach(this.more, () => this.items());
    this.said = make("div", { class: "said", dir: "auto", hidden: !text }, text);
    this.foot = make("footer", { class: "foot" }, this.branches.element, this.answer, this.edit, this.more);
    const shown = pictures.map((picture, index) => {
      const name = t("turn_picture", { number: index + 1, ...picture });
      return make("img", { src: picture.src, alt: name, title: name, loading: "lazy", decoding: "async" });
    });
    this.element = make(
      "article",
      { class: "turn user", "aria-label": t("turn_you") },
      shown.length ? make("div", { class: "pictures" }, ...shown) : null,
      this.said,
      this.foot,
    );
  }

  /**
   * Update what can change in a message: whether it still waits for a reply.
   * @param {unknown} _
   * @param {Surroundings} surroundings
   */
  update(_, { unanswered }) {
    this.answer.hidden = unanswered !== this.id;
  }

  /** @returns {(MenuItem | null)[]} */
  items() {
    const copyText = async () => {
      await copy(this.text);
      this.toast.show(t("turn_copied"));
    };
    const remove = () => this.act("delete", { message: this.id });
    const busy = document.body.classList.contains("answering");
    return [
      ...(this.text ? [{ label: t("turn_copy"), act: copyText }, null] : []),
      {
        label: t(this.element.nextElementSibling ? "turn_delete_from_here" : "turn_delete"),
        act: remove,
        disabled: busy,
      },
    ];
  }

  beginEdit() {
    const field = make("textarea", {
      class: "edit",
      value: this.text,
      dir: "auto",
      "aria-label": t("turn_edit_label"),
    });
    field.rows = Math.min(12, Math.max(2, this.text.split("\n").length));
    const send = make("button", { type: "submit", class: "quiet strong" }, t("turn_edit_send"));
    const cancel = make("button", { type: "button", class: "quiet" }, t("turn_edit_cancel"));
    const form = make("form", { class: "editing" }, field, make("div", { class: "actions" }, cancel, send));
    const end = () => {
      form.replaceWith(this.said, this.foot);
      this.edit.focus({ preventScroll: true });
    };
    cancel.addEventListener("click", end);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.act("edit_message", { message: this.id, text: field.value });
    });
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") end();
      if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.foot.remove();
    this.said.replaceWith(form);
    field.focus();
  }
}
