// The two kinds of turns as the reader sees them: what was said, and a reply while it grows and when it is done.

import { AnswerView } from "./answer.js";
import { BranchView } from "./branches.js";
import { confirmOn, copy, make } from "./dom.js";
import { ReasoningView } from "./reasoning.js";
import { seconds, sentence, t } from "./strings.js";

const button = (act, key, help) => make("button", { type: "button", class: "quiet", title: help ? t(help) : null, data: { act } }, t(key));

/** What a person said: plain text and thumbnails; it can be said in other words. */
export class UserTurn {
  constructor({ id, text, pictures }, { act, choose }) {
    Object.assign(this, { id, text, act });
    this.branches = new BranchView(choose);
    this.edit = button("edit", "turn_edit");
    this.edit.addEventListener("click", () => this.beginEdit());
    this.said = make("div", { class: "said", dir: "auto", hidden: !text }, text);
    this.foot = make("footer", { class: "foot" }, this.branches.element, this.edit);
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

  beginEdit() {
    const field = make("textarea", { class: "edit", value: this.text, dir: "auto", "aria-label": t("turn_edit_label") });
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

/** A reply. `live` shows it as it stands, `finish` as it ended; both keep the nodes that are there. */
export class ReplyTurn {
  constructor({ act, announce, choose }) {
    this.act = act;
    this.branches = new BranchView(choose);
    this.announce = announce;
    this.reasoning = new ReasoningView();
    this.answer = new AnswerView();
    this.status = make("p", { class: "status" }, t("turn_starting"));
    this.answerNow = make("button", { type: "button", class: "answer-now", hidden: true }, t("turn_answer_now"));
    this.answerNow.addEventListener("click", () => {
      this.answerNow.disabled = true;
      act("answer_now");
    });
    this.head = make("div", { class: "thinking" }, this.reasoning.element, this.answerNow);
    this.notes = make("div", { class: "notes" });
    this.foot = make("footer", { class: "foot" });
    this.element = make(
      "article",
      { class: "turn reply", "aria-label": t("turn_model") },
      // A heading to go to from reply to reply; those of the answers are below it.
      make("h2", { class: "visually-hidden" }, t("turn_model")),
      this.status, this.head, this.answer.element, this.notes, this.foot,
    );
    this.element.addEventListener("click", (event) => this.clicked(event));
    this.state = "starting";
  }

  /** The reply as it stands: a value of the live channel. */
  live(value) {
    if (this.finished) return;
    this.reasoning.take(value.reasoning);
    this.answer.take(value.answer, value.state === "ended");
    if (value.state !== this.state) this.enter(value.state);
    this.showStatus(value);
    this.clock = { since: performance.now(), seconds: value.seconds, tokens: value.reasoning_tokens, asked: value.answer_now };
    if (value.state === "thinking") this.tick();
    else if (value.reasoning_tokens) this.reasoning.thought(value.seconds, value.reasoning_tokens, value.state === "answering");
    this.answerNow.disabled = value.answer_now;
  }

  /** A finished reply goes on: what is there stays, and grows. */
  resume() {
    this.finished = false;
    this.state = "starting";
    this.answerNow.disabled = false;
    this.answerNow.hidden = true;
    this.head.append(this.answerNow);
    this.notes.replaceChildren();
    this.foot.replaceChildren();
    const old = this.answer;
    this.answer = new AnswerView();
    // The new one takes its place when it shows as much.
    this.answer.onDrawn = () => {
      old.element.replaceWith(this.answer.element);
      this.answer.onDrawn = old.onDrawn;
      old.onDrawn?.();
    };
    this.answer.take({ at: 0, text: this.turn.answer }, false);
  }

  enter(state) {
    this.state = state;
    const thinking = state === "thinking";
    this.element.dataset.state = state;
    this.answerNow.hidden = !thinking;
    this.reasoning.unfold(thinking);
    clearInterval(this.timer);
    if (thinking) {
      this.announce(t("turn_thinking"));
      this.timer = setInterval(() => this.tick(), 500);
    }
  }

  /** The header runs by itself between the updates, and while there are none. */
  tick() {
    const { since, seconds: known, tokens, asked } = this.clock;
    this.reasoning.thinking(known + (performance.now() - since) / 1000, tokens, asked);
  }

  showStatus({ state, position, done, total }) {
    const texts = {
      starting: () => t("turn_starting"),
      queued: () => t("turn_queued", { position }),
      reading: () => t("turn_reading", { percent: Math.floor((100 * done) / Math.max(1, total)) }),
    };
    this.status.hidden = !(state in texts);
    if (state in texts) this.status.textContent = texts[state]();
  }

  /** The reply as it ended: a finished turn. */
  finish(turn) {
    if (this.finished) return;
    const wasLive = this.state !== "starting";
    this.finished = true;
    this.turn = turn;
    clearInterval(this.timer);
    this.element.dataset.state = "done";
    this.status.remove();
    this.answerNow.remove();
    this.reasoning.complete(turn.reasoning);
    if (turn.reasoning) this.reasoning.thought(turn.usage.reasoning_seconds, turn.usage.reasoning_tokens, turn.closed);
    // Reasoning that nothing follows is all there is to read: it stays open.
    this.reasoning.unfold(!turn.answer.trim() && !turn.failure);
    this.answer.take({ at: 0, text: turn.answer }, true);
    this.showNotes(turn);
    this.showFoot(turn);
    if (wasLive) this.announce([turn.answer, ...[...this.notes.children].map((note) => note.textContent)].join("\n"));
  }

  showNotes({ notices, ended, failure, answer, reasoning, usage, params }) {
    // A reply that was continued has more tokens than its limit.
    const limit = Math.min(usage.completion_tokens, params?.max_tokens ?? Infinity);
    const notes = notices.map(({ key, values }) => make("p", { class: "note" }, t(`notice_${key}`, values)));
    if (failure) notes.push(make("p", { class: "note failure" }, sentence(failure)));
    else if (ended === "length") notes.push(make("p", { class: "note" }, t("ended_length", { limit })));
    else if (ended === "cancelled") notes.push(make("p", { class: "note" }, t("ended_cancelled")));
    if (!failure && ended !== "cancelled" && !answer.trim()) {
      notes.push(make("p", { class: "note" }, t(reasoning ? "turn_no_answer" : "turn_empty")));
    }
    this.notes.replaceChildren(...notes);
  }

  showFoot({ usage, answer, reasoning, params, model, may_continue: cut }) {
    const facts = [];
    if (usage.completion_tokens) facts.push(t("turn_tokens", { count: usage.completion_tokens }));
    if (usage.tokens_per_second) facts.push(t("turn_tokens_per_second", { rate: Number(usage.tokens_per_second.toFixed(1)) }));
    if (usage.first_token_seconds) facts.push(t("turn_first_token", { seconds: seconds(usage.first_token_seconds) }));
    const written = params && Object.entries(params).filter(([, value]) => value !== null);
    const source = written ? [model, ...written.map(([name, value]) => `${t(`parameter_${name}`)} ${value}`)].join(" · ") : "";
    const actions = [
      cut ? button("resume", "turn_continue") : null,
      answer.trim() ? button("copy", "turn_copy") : null,
      button("regenerate", "turn_regenerate"),
      reasoning ? button("answer_again", "turn_answer_again", "turn_answer_again_help") : null,
    ];
    this.foot.replaceChildren(
      make("span", { class: "actions" }, ...actions),
      this.branches.element,
      make("span", { class: "facts", title: source }, facts.join(" · ")),
    );
  }

  async clicked(event) {
    const button = event.target.closest("[data-act]");
    if (!button) return;
    const { act } = button.dataset;
    if (["regenerate", "resume", "answer_again"].includes(act)) this.act(act, { message: this.turn.id });
    if (act === "copy" || act === "copy-code") {
      await copy(act === "copy" ? this.turn.answer : button.closest(".code").querySelector("code").textContent);
      confirmOn(button, t("turn_copied"));
    }
  }
}
