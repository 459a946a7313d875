// The actions for a finished reply: frequent ones as buttons, the others in a menu.

import { actionButton, confirmOn, copy, make } from "./dom.js";
import { seconds, t } from "./i18n.js";
import { settings } from "./settings.js";
import { greyOut, unsupported } from "./unsupported.js";

/** @import { BranchView } from "./branches.js" */
/** @import { ReasoningEditor } from "./reasoning_editor.js" */
/** @import { Hands, MenuItem, ReplyValue, Source } from "./types.js" */

/**
 * Reasoning and answer as Markdown, with the reasoning as a quotation.
 * @param {string} reasoning
 * @param {{ answer: string, edited: boolean }} turn
 */
export function asMarkdown(reasoning, { answer, edited }) {
  const heading = `**${t("reasoning_heading")}**${edited ? ` (${t("reasoning_edited")})` : ""}`;
  const quoted = [heading, "", ...reasoning.trim().split("\n")].map((line) => `> ${line}`.trimEnd());
  return `${quoted.join("\n")}\n\n${answer.trim()}\n`;
}

/** Whether reasoning stays in the context by default. */
const kept = () => settings.value.keep_reasoning;

export class ReplyFooter {
  /**
   * `editor` is the reply's ReasoningEditor, `branches` its arrows.
   * @param {Hands & { reasoning: () => Promise<string> }} hands
   * @param {ReasoningEditor} editor
   * @param {BranchView} branches
   */
  constructor({ act, reasoning, menu, details, toast }, editor, branches) {
    this.act = act;
    this.reasoning = reasoning;
    this.details = details;
    this.toast = toast;
    this.editor = editor;
    this.branches = branches;
    /** @type {Source | null | undefined} */
    this.source = undefined;
    /** @type {ReplyValue | null} */
    this.turn = null;
    this.element = make("footer", { class: "foot" });
    this.more = actionButton("more", "turn_more", { icon: "⋯" });
    menu.attach(this.more, () => this.items());
  }

  clear() {
    this.element.replaceChildren();
  }

  /**
   * Show the footer of a finished reply.
   * @param {ReplyValue} turn
   */
  show(turn) {
    this.turn = turn;
    const ask = (/** @type {string} */ act, /** @type {string} */ key) => {
      const button = actionButton(act, key);
      // Some servers can resume a plain answer, but not one with reasoning.
      if (act === "resume" && turn.reasoning) button.dataset.ability = "resume_reasoning";
      greyOut(button);
      button.addEventListener("click", () => this.ask(act));
      return button;
    };
    const copyAnswer = actionButton("copy", "turn_copy", { done: "turn_copied" });
    copyAnswer.addEventListener("click", async () => {
      await copy(turn.answer);
      confirmOn(copyAnswer);
    });
    const actions = [
      turn.may_continue ? ask("resume", "turn_continue") : null,
      turn.answer.trim() ? copyAnswer : null,
      ask("regenerate", "turn_regenerate"),
      this.more,
    ];
    this.element.replaceChildren(
      make("span", { class: "actions" }, ...actions),
      this.branches.element,
      make("span", { class: "facts" }, this.facts(turn)),
    );
  }

  /** @param {ReplyValue} turn */
  facts({ usage }) {
    const facts = [];
    if (usage.completion_tokens) facts.push(t("turn_tokens", { count: usage.completion_tokens }));
    if (usage.tokens_per_second)
      facts.push(t("turn_tokens_per_second", { rate: Number(usage.tokens_per_second.toFixed(1)) }));
    if (usage.first_token_seconds) facts.push(t("turn_first_token", { seconds: seconds(usage.first_token_seconds) }));
    return facts.join(" · ");
  }

  /**
   * @param {string} name
   * @param {object} more
   */
  ask(name, more = {}) {
    this.act(name, { message: this.turn?.id, ...more });
  }

  /**
   * The menu: copy, edit the reasoning, details, delete.
   * @returns {(MenuItem | null)[]}
   */
  items() {
    const { turn } = this;
    if (!turn) return [];
    const busy = document.body.classList.contains("answering");
    const both = turn.reasoning && turn.answer.trim();
    /** @type {(MenuItem | null)[]} */
    const items = [];
    if (turn.reasoning)
      items.push({ label: t("turn_copy_reasoning"), act: async () => this.copied(await this.reasoning()) });
    if (both)
      items.push({
        label: t("turn_copy_both"),
        act: async () => this.copied(asMarkdown(await this.reasoning(), turn)),
      });
    if (turn.reasoning) items.push(null, ...this.reasoningItems(turn, busy));
    if (turn.source !== null || turn.params)
      items.push(null, { label: t("details_heading"), act: (opener) => this.showDetails(opener) });
    const followed = this.element.closest(".turn")?.nextElementSibling;
    const remove = {
      label: t(followed ? "turn_delete_from_here" : "turn_delete"),
      act: () => this.ask("delete"),
      disabled: busy,
    };
    return items.length ? [...items, null, remove] : [remove];
  }

  /**
   * @param {ReplyValue} turn
   * @param {boolean} busy
   * @returns {MenuItem[]}
   */
  reasoningItems(turn, busy) {
    const inContext = turn.keep_reasoning ?? kept();
    const note = t("turn_tokens", { count: turn.usage.reasoning_tokens });
    // A choice that equals the general setting is not stored.
    const keep = !inContext === kept() ? null : !inContext;
    const able = (/** @type {string} */ name) => ({
      disabled: busy || Boolean(unsupported(name)),
      why: unsupported(name),
    });
    /** @type {MenuItem[]} */
    const items = [
      { label: t("turn_answer_again"), act: () => this.ask("answer_again"), ...able("answer_again") },
      {
        label: t("reasoning_edit"),
        act: async (opener) => this.editor.open(await this.reasoning(), opener),
        ...able("rethink"),
      },
    ];
    // A reply without an answer is only its reasoning, which is never left out.
    if (turn.answer.trim()) {
      items.push({
        label: t("reasoning_in_context"),
        note,
        checked: inContext,
        act: () => this.ask("keep_reasoning", { keep }),
        ...able("keep_reasoning"),
      });
    }
    return items;
  }

  /** @param {string} text */
  async copied(text) {
    await copy(text);
    this.toast.show(t("turn_copied"));
  }

  /** @param {HTMLElement} opener */
  showDetails(opener) {
    if (this.turn) this.details.show(opener, this.turn, this.source, () => this.ask("replay"));
  }
}
