// A reply on the page: while it grows, when it is finished, and when it resumes.

import { AnswerView } from "./answer.js";
import { BranchView } from "./branches.js";
import { confirmOn, copy, make } from "./dom.js";
import { sentence, t } from "./i18n.js";
import { ReasoningView } from "./reasoning.js";
import { ReasoningEditor } from "./reasoning_editor.js";
import { ReplyFooter } from "./reply_footer.js";
import { facts } from "./settings.js";
import { greyOut, tellInterruption } from "./unsupported.js";

/** @import { Branch, Hands, LiveUpdate, Message, Parameters, ReplyValue, Surroundings, Usage } from "./types.js" */

const MIN_HEADER_MS = 450; // between two updates of a running header: nobody could read more

/**
 * The note on a reply that ended at a limit, with the advice to raise that only if it can be raised.
 * @param {Usage} usage
 * @param {Parameters | null} params
 */
function outOfTokens({ completion_tokens: written }, params) {
  const chosen = params?.max_tokens ?? Infinity;
  // A continued reply has more tokens than its limit.
  const limit = Math.min(written, chosen);
  const most = facts.value?.parameters.find(({ name }) => name === "max_tokens")?.high ?? Infinity;
  return t(chosen < most ? "ended_length" : "export_ended_length", { limit });
}

/** A reply. `live` shows it as it grows, `finish` as it ended; both keep the existing nodes. */
export class ReplyTurn {
  /** @param {Hands & { announce: (text: string) => void }} hands */
  constructor(hands) {
    const { act, announce, choose, reasoning } = hands;
    /** @type {ReplyValue | null} */
    this.turn = null; // the finished turn
    /** @type {Branch | null | undefined} */
    this.branch = undefined;
    /** @type {(() => void) | undefined} */
    this.onDrawn = undefined;
    this.finished = false;
    this.resumed = false; // whether it resumes, and its texts have not arrived again yet
    this.ticked = -Infinity; // when the header was last updated
    this.clock = { since: 0, seconds: 0, tokens: 0, asked: false };
    const id = () => /** @type {ReplyValue} */ (this.turn).id;
    this.fetchReasoning = () => reasoning(id());
    this.branches = new BranchView(choose);
    this.announce = announce;
    this.reasoning = new ReasoningView();
    this.answer = this.shown = this.newAnswer();
    this.status = make("p", { class: "status" }, t("turn_starting"));
    this.answerNow = make("button", { type: "button", class: "answer-now", hidden: true }, t("turn_answer_now"));
    this.answerNow.addEventListener("click", () => {
      this.answerNow.disabled = true;
      act("answer_now");
    });
    this.head = make("div", { class: "thinking" }, this.reasoning.element, this.answerNow);
    this.notes = make("div", { class: "notes" });
    this.editor = new ReasoningEditor(this.reasoning, (text, closed) =>
      act("rethink", { message: id(), text, closed }),
    );
    this.foot = new ReplyFooter({ ...hands, reasoning: () => this.reasoning.whole() }, this.editor, this.branches);
    this.element = make(
      "article",
      { class: "turn reply", "aria-label": t("turn_model") },
      // A heading for navigation from reply to reply; those of the answers are below it.
      make("h2", { class: "visually-hidden" }, t("turn_model")),
      this.status,
      this.head,
      this.answer.element,
      this.notes,
      this.foot.element,
    );
    this.element.addEventListener("click", (event) => this.clicked(event));
    this.state = "starting";
    this.awaited = false; // whether it was seen running: then its end is announced, however soon it comes
  }

  /**
   * Show an update of the live stream.
   * @param {LiveUpdate} value
   */
  live(value) {
    if (this.finished) return;
    if (value.start === 0) this.restart();
    this.reasoning.add(value.reasoning);
    this.answer.add(value.answer);
    if (value.start === 0 && !value.answer) this.answer.onDrawn?.(); // the answer so far was reasoning
    if (value.state !== this.state) this.enter(value.state);
    this.showStatus(value);
    this.clock = {
      since: performance.now(),
      seconds: value.seconds,
      tokens: value.reasoning_tokens,
      asked: value.answer_now,
    };
    if (value.state === "thinking") this.tick(value.answer_now ? 0 : MIN_HEADER_MS);
    else if (value.reasoning_tokens)
      this.reasoning.thought(value.seconds, value.reasoning_tokens, value.state === "answering");
    this.answerNow.disabled = value.answer_now;
    greyOut(this.answerNow, "answer_now");
  }

  /** Resume a finished reply: what is shown stays until its texts have arrived again, and then grows. */
  resume() {
    this.finished = false;
    this.resumed = true;
    this.state = "starting";
    delete this.element.dataset.state;
    this.status.textContent = t("turn_starting");
    this.status.hidden = false;
    this.answerNow.disabled = false;
    this.answerNow.hidden = true;
    this.head.append(this.answerNow);
    this.notes.replaceChildren(this.status); // below the text, which must not move while it is read
    this.foot.clear();
    this.editor.close();
  }

  /** The texts will arrive again from their beginning. */
  restart() {
    this.resumed = false;
    this.reasoning.restart();
    if (this.answer.received || this.answer.final) this.answer = this.newAnswer();
  }

  /** A new answer view, which replaces the current one as soon as it is rendered. */
  newAnswer() {
    const answer = new AnswerView();
    answer.onDrawn = () => {
      if (answer !== this.answer) return;
      if (this.shown !== answer) this.shown.element.replaceWith(answer.element);
      this.shown = answer;
      this.onDrawn?.();
    };
    return answer;
  }

  /**
   * Whether `turn` differs from what is shown, because it was continued in another tab.
   * @param {ReplyValue} turn
   */
  differs(turn) {
    const { answer, reasoning, ended, failure } = this.turn ?? turn;
    return (
      this.finished &&
      !(
        turn.answer === answer &&
        turn.reasoning === reasoning &&
        turn.ended === ended &&
        turn.failure?.key === failure?.key
      )
    );
  }

  /** Stop: it is no longer shown. */
  leave() {
    clearInterval(this.timer);
  }

  /** @param {string} state */
  enter(state) {
    this.state = state;
    const thinking = state === "thinking";
    this.element.dataset.state = state;
    this.answerNow.hidden = !thinking;
    this.reasoning.unfold(thinking);
    clearInterval(this.timer);
    if (thinking) {
      this.announce(t("turn_thinking"));
      this.ticked = -Infinity;
      this.timer = setInterval(() => this.tick(2 * MIN_HEADER_MS), MIN_HEADER_MS);
    }
  }

  /**
   * Refresh the running header, with updates and between them, but at most once in `rest` ms.
   * @param {number} rest
   */
  tick(rest) {
    const now = performance.now();
    if (now - this.ticked < rest) return;
    this.ticked = now;
    const { since, seconds: known, tokens, asked } = this.clock;
    this.reasoning.thinking(known + (now - since) / 1000, tokens, asked);
  }

  /** @param {LiveUpdate} value */
  showStatus({ state, position, retry_seconds: retry, done, total }) {
    /** @type {Record<string, () => string>} */
    const texts = {
      starting: () => t("turn_starting"),
      queued: () => t("turn_queued", { position }),
      waiting: () => t("turn_waiting", { seconds: Math.ceil(retry) }),
      reading: () => t("turn_reading", { percent: Math.floor((100 * done) / Math.max(1, total)) }),
    };
    this.status.hidden = !(state in texts);
    if (state in texts) this.status.textContent = texts[state]();
  }

  /**
   * Show the reply as it ended: a finished turn.
   * @param {ReplyValue} turn
   */
  finish(turn) {
    if (this.finished) return;
    this.finished = true;
    this.turn = turn;
    if (this.resumed) this.restart(); // it ended before any update arrived
    clearInterval(this.timer);
    this.element.dataset.state = "done";
    this.status.remove();
    this.answerNow.remove();
    this.reasoning.complete(turn.reasoning, this.fetchReasoning);
    if (turn.reasoning) this.reasoning.thought(turn.usage.reasoning_seconds, turn.usage.reasoning_tokens, turn.closed);
    // Reasoning without an answer is all there is to read, so it stays open.
    this.reasoning.unfold(!turn.answer.trim() && !turn.failure);
    this.answer.complete(turn.answer);
    this.showNotes(turn);
    this.foot.show(turn);
    if (this.awaited)
      this.announce([turn.answer, ...[...this.notes.children].map((note) => note.textContent)].join("\n"));
  }

  /** @param {ReplyValue} turn */
  showNotes({ notices, ended, failure, answer, reasoning, usage, params, may_continue: begun }) {
    const lowered = ended === "length" && notices.find(({ key }) => key === "max_tokens_lowered");
    const noticeNote = (/** @type {Message} */ { key, values }) => {
      const note = make("p", { class: "note" });
      if (key === "cut_off" && begun) return tellInterruption(note, reasoning ? "resume_reasoning" : "resume");
      note.textContent = t(key === "cut_off" ? "notice_cut_off_at_start" : `notice_${key}`, values);
      return note;
    };
    const notes = notices.filter((each) => each !== lowered).map(noticeNote);
    if (failure) notes.push(make("p", { class: "note failure" }, sentence(failure)));
    else if (ended === "length")
      notes.push(
        make("p", { class: "note" }, lowered ? t("ended_context_full", lowered.values) : outOfTokens(usage, params)),
      );
    else if (ended === "cancelled" && !notices.some(({ key }) => key === "cut_off"))
      notes.push(make("p", { class: "note" }, t("ended_cancelled")));
    if (!failure && ended !== "cancelled" && !answer.trim()) {
      notes.push(make("p", { class: "note" }, t(reasoning ? "turn_no_answer" : "turn_empty")));
    }
    this.notes.replaceChildren(...notes);
  }

  /**
   * Update what can change in a finished reply: whether its reasoning is in the context, and whether it can be regenerated.
   * @param {ReplyValue} turn
   * @param {Surroundings} surroundings
   */
  update(turn, { sources }) {
    this.turn = { ...this.turn, ...turn };
    this.foot.turn = this.turn;
    this.foot.source = turn.source === null ? null : sources[turn.source];
    this.keep(turn.keep_reasoning);
    this.reasoning.showBadges(turn.edited, Boolean(turn.answer.trim()));
  }

  /**
   * Whether its reasoning is in the context; null follows the general setting.
   * @param {boolean | null} kept
   */
  keep(kept) {
    if (this.turn) this.turn.keep_reasoning = kept;
    this.element.dataset.keep = String(kept ?? "");
  }

  /**
   * The copy button of a code block.
   * @param {Event} event
   */
  async clicked(event) {
    /** @type {HTMLElement | null} */
    const button = /** @type {Element} */ (event.target).closest('[data-act="copy-code"]');
    if (!button) return;
    await copy(button.closest(".code")?.querySelector("code")?.textContent ?? "");
    confirmOn(button);
  }
}
