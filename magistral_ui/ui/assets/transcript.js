// The conversation in one column: finished turns by their id, the live turn by its generation; nodes are never rebuilt.

import { LazyTurns } from "./lazy_turns.js";
import { LiveStream } from "./live_stream.js";
import { make, place, writing } from "./dom.js";
import { ReplyDetails } from "./reply_details.js";
import { Follower } from "./follower.js";
import { Menu } from "./menu.js";
import { greyOut } from "./unsupported.js";
import { settings } from "./settings.js";
import { sentence, t } from "./i18n.js";
import { Toast } from "./toast.js";
import { ReplyTurn } from "./turns.js";
import { UserTurn } from "./user_turn.js";

const CHANGE_EVENTS = new Set(["example", "regenerate", "resume", "answer_again", "edit_message", "rethink", "replay", "answer", "delete", "restore", "keep_reasoning", "choose_branch"]);
const CHANGE_TIMEOUT_MS = 5_000; // ms for which a change that was asked for keeps others back, should no answer come

const NO_SIBLINGS = { number: 1, count: 1, previous: null, next: null }; // a message without alternatives
const [AGAIN, AT_MOST] = [2_000, 60_000]; // ms until the conversation is asked for again where none came, at first and in the end
const HIDDEN_MS = 15_000; // ms out of sight after which the conversation is asked for again

export class Transcript {
  /** `act(name, data)` tells the server what the reader asked for. */
  constructor(element, act) {
    this.tell = act;
    this.turns = new Map(); // message id → turn
    this.replies = new Map(); // generation id → reply, live or finished here
    this.column = make("div", { class: "turns", role: "group", "aria-label": t("page_conversation") });
    this.alert = make("div", { class: "alert", role: "alert", hidden: true });
    this.speaker = make("div", { class: "visually-hidden", role: "status" });
    this.welcome = make("section", { class: "welcome", hidden: true });
    element.replaceChildren(this.welcome, this.column, this.alert, this.speaker);
    this.follower = new Follower();
    this.menu = new Menu(element, t("turn_more"));
    this.details = new ReplyDetails(element);
    this.toast = new Toast(document.getElementById("composer"));
    this.above = new LazyTurns((data) => this.act("more", data), (...drawn) => this.fill(...drawn));
    // The general choice shows at every reply that has none of its own, see transcript.css.
    settings.follow(({ keep_reasoning: kept }) => (document.body.dataset.reasoning = kept ? "kept" : "left-out"));
    // What was said meanwhile elsewhere, or while the line was down, is asked for when the reader comes back.
    addEventListener("online", () => this.act("ended"));
    addEventListener("unopened", () => this.openAgain());
    if (window.magistralUnopened) this.openAgain(); // that was before this
    addEventListener("visibilitychange", () => {
      if (document.hidden) this.left = performance.now();
      else if (performance.now() - this.left > HIDDEN_MS) this.act("ended");
    });
  }

  /** No conversation came, and nothing can be sent without one. */
  openAgain() {
    const pause = this.pause ?? AGAIN;
    this.pause = Math.min(AT_MOST, 2 * pause);
    setTimeout(async () => this.conversation || (await this.tell("attach")) || this.openAgain(), pause);
  }

  /** Tell the server; a second click before it has answered does nothing. */
  act(name, data) {
    if (CHANGE_EVENTS.has(name)) {
      if (performance.now() < this.busyUntil) return;
      this.busyUntil = performance.now() + CHANGE_TIMEOUT_MS;
    }
    this.tell(name, data);
  }

  /** The finished turns, and which generation runs: `{conversation, seen, asked, turns, live, alert, welcome}`. */
  show(value) {
    if (!value || (value.follows && value.conversation !== this.conversation)) return;
    this.busyUntil = 0;
    if (this.isLate(value)) return this.passOver(value);
    Object.assign(this, { server: value.server, seen: value.seen, turned: value.follows ? this.turned : value.asked });
    this.turnTo(value.conversation ?? this.conversation);
    const shown = value.turns.map((turn) => this.turnFor(turn));
    if (value.continues !== null) this.takeUp(value.continues, value.live);
    const running = value.live ? this.replyFor(value.live) : null;
    if (running) {
      running.awaited = true;
      shown.push(running);
    }
    place(this.column, shown.map((turn) => turn.element));
    const ids = new Set(value.turns.map((turn) => turn.id));
    for (const id of this.turns.keys()) if (!ids.has(id)) this.forget(id);
    for (const [id, reply] of this.replies) if (!shown.includes(reply)) this.replies.delete(id);
    for (const turn of value.turns) {
      const known = this.turns.get(turn.id);
      this.branch(known, turn.branch);
      if (turn.outline === undefined) known.update(turn, value);
      else known.keep?.(turn.keep_reasoning);
    }
    this.follow(value.live, running);
    this.showWelcome(shown.length ? null : value.welcome);
    this.follower.rest(!shown.length);
    if (value.alert !== undefined) this.showAlert(value.alert);
    else if (this.before && !running) this.showAlert(null); // what could not be done while it ran can be now
    if (value.deleted) this.offerUndo(value.deleted);
    document.body.classList.toggle("answering", Boolean(value.live));
    this.hold();
    if (running && running !== this.before) this.follower.toEnd();
    else this.follower.follow();
    this.before = running;
    const arrived = this.chosen && value.turns.some((turn) => turn.id === this.chosen.message);
    if (arrived && !writing()) this.turns.get(this.chosen.message).branches.focus(this.chosen.way);
    if (arrived || value.alert) this.chosen = null; // an update that was on its way before may come first
  }

  /**
   * Answers overtake each other. Of the conversation that is shown, the one that saw it last counts; which conversation that is,
   * the question that was put last.
   */
  isLate({ conversation, server, seen, asked }) {
    if (conversation !== this.conversation) return asked < this.turned;
    return server === this.server && seen < this.seen;
  }

  /** Of an answer that comes too late only what it tells of an act is shown; the composer that came with it is as old. */
  passOver({ conversation, alert, deleted }) {
    if (conversation === this.conversation && alert) this.showAlert(alert);
    if (conversation === this.conversation && deleted) this.offerUndo(deleted);
    this.act("ended");
  }

  /** The tab shows this conversation now; messages of another one may have the same ids. */
  turnTo(conversation) {
    if (this.conversation && conversation !== this.conversation) {
      for (const reply of this.replies.values()) reply.leave();
      this.turns.clear();
      this.above.reset();
      this.replies.clear();
      this.follower.rejoin();
      this.toast.hide(); // what it would undo is in the other one
    }
    this.conversation = conversation;
    if (conversation) sessionStorage.setItem("magistral-ui-conversation", conversation); // see server.js
    dispatchEvent(new CustomEvent("conversation", { detail: { id: conversation } })); // for the list of conversations
  }

  /** A finished reply goes on as generation `live`: the same nodes, under another name. */
  takeUp(message, live) {
    const reply = this.turns.get(message);
    if (!reply || this.replies.has(live)) return;
    for (const [id, each] of this.replies) if (each === reply) this.replies.delete(id);
    this.turns.delete(message);
    this.replies.set(live, reply);
    reply.resume();
  }

  choose(message, way) {
    this.chosen = { message, way };
    this.follower.leave(); // the arrows stay under the pointer
    this.act("choose_branch", { message });
  }

  /** Read the running reply, and say when it has ended, so that the finished turn comes. */
  follow(generation, reply) {
    if (this.channel?.generation === generation) return;
    this.channel?.close();
    this.channel = generation && new LiveStream(
      generation,
      (update) => {
        reply.live(update);
        this.follower.follow();
      },
      () => this.act("ended"),
    );
  }

  turnFor(turn) {
    let known = this.turns.get(turn.id);
    if (known && (!known.isOutline || turn.outline !== undefined)) {
      if (turn.outline === undefined && known.differs?.(turn)) {
        known.resume();
        known.finish(turn);
      }
      return known;
    }
    this.above.drop(turn.id);
    if (turn.outline !== undefined) known = this.above.outline(turn);
    else if (turn.role === "user") known = new UserTurn(turn, this.hands());
    else {
      known = this.replyFor(turn.generation || `message-${turn.id}`);
      known.finish(turn);
    }
    this.turns.set(turn.id, known);
    return known;
  }

  /** A turn of which there was only the outline. */
  fill(turn, outline, more) {
    if (this.turns.get(turn.id) !== outline) return;
    this.turns.delete(turn.id);
    const known = this.turnFor(turn);
    this.branch(known, outline.branch);
    known.update(turn, more);
    outline.element.replaceWith(known.element);
    this.hold();
    this.follower.follow();
  }

  /** While a reply is being written, the buttons that would begin another one wait. */
  hold() {
    const busy = document.body.classList.contains("answering");
    for (const button of this.column.querySelectorAll('.reply :is([data-act="regenerate"], [data-act="resume"])')) {
      button.disabled = busy;
      greyOut(button);
    }
  }

  branch(turn, branch) {
    turn.branch = branch;
    turn.branches.show(branch ?? NO_SIBLINGS);
  }

  forget(id) {
    this.turns.delete(id);
    this.above.drop(id);
  }

  replyFor(generation) {
    let reply = this.replies.get(generation);
    if (!reply) {
      reply = new ReplyTurn({ ...this.hands(), announce: (text) => (this.speaker.textContent = text) });
      reply.onDrawn = () => this.follower.follow();
      this.replies.set(generation, reply);
    }
    return reply;
  }

  /** What a turn may call. */
  hands() {
    const { menu, details, toast } = this;
    const reasoning = (message) => this.above.reasoning(message);
    return { act: (...told) => this.act(...told), choose: (...told) => this.choose(...told), reasoning, menu, details, toast };
  }

  offerUndo({ message, count }) {
    this.toast.show(t("turn_deleted", { count }), t("turn_undo"), () => {
      this.act("restore", { message });
      document.querySelector("#box textarea")?.focus({ preventScroll: true });
    });
  }

  /** `failure` is `{key, values}`, or a sentence; null where there is none any more. */
  showAlert(failure) {
    this.alert.hidden = !failure;
    if (!failure) return;
    const dismiss = make("button", { type: "button", class: "quiet" }, t("turn_dismiss"));
    dismiss.addEventListener("click", () => (this.alert.hidden = true));
    this.alert.replaceChildren(make("p", {}, typeof failure === "string" ? failure : sentence(failure)), dismiss);
    this.follower.toEnd();
  }

  /** What an empty conversation shows: a greeting, what the model can do, and examples to click. */
  showWelcome(welcome) {
    this.welcome.hidden = !welcome;
    const drawn = JSON.stringify(welcome);
    if (!welcome || drawn === this.drawnWelcome) return;
    this.drawnWelcome = drawn;
    const examples = welcome.examples.map(({ text, language, picture }, index) => {
      const label = picture ? t("page_example_picture", { text }) : text;
      const button = make(
        "button",
        { type: "button", class: "example", "aria-label": label },
        picture ? make("img", { src: picture, alt: "" }) : null,
        make("span", { lang: language, dir: "auto" }, text),
      );
      button.addEventListener("click", () => {
        const { model, fit } = document.body.dataset;
        if (model === "ready" && fit !== "full") this.act("example", { index });
      });
      return make("li", {}, button);
    });
    this.welcome.replaceChildren(
      make("h2", {}, t(welcome.demo ? "page_greeting_demo" : "page_greeting")),
      make("p", {}, t(welcome.description)),
      make("ul", { class: "examples", "aria-label": t("page_examples") }, ...examples),
    );
  }
}
