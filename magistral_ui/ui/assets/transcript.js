// The conversation in one column: finished turns by their id, the live turn by its generation; nodes are never rebuilt.

import { field } from "./composer.js";
import { fillAlert, make, place, writing } from "./dom.js";
import { Follower } from "./follower.js";
import { t } from "./i18n.js";
import { LazyTurns } from "./lazy_turns.js";
import { LiveStream } from "./live_stream.js";
import { Menu } from "./menu.js";
import { ReplyDetails } from "./reply_details.js";
import { settings } from "./settings.js";
import { Toast } from "./toast.js";
import { ReplyTurn } from "./turns.js";
import { greyOut } from "./unsupported.js";
import { UserTurn } from "./user_turn.js";

/** @import { Act, Branch, Deleted, Hands, LiveUpdate, Message, MoreValue, Outline, PageValue, ReplyValue, Surroundings, TurnValue, UserValue, Way, Welcome } from "./types.js" */

const CHANGE_EVENTS = new Set([
  "example",
  "regenerate",
  "resume",
  "answer_again",
  "edit_message",
  "rethink",
  "replay",
  "answer",
  "delete",
  "restore",
  "keep_reasoning",
  "choose_branch",
]);
const CHANGE_TIMEOUT_MS = 5_000; // ms for which a change that was asked for keeps others back, should no answer come

const NO_SIBLINGS = { number: 1, count: 1, previous: null, next: null }; // a message without alternatives
const [RETRY_MIN_MS, RETRY_MAX_MS] = [2_000, 60_000]; // ms until the conversation is asked for again where none came, at first and in the end
const HIDDEN_MS = 15_000; // ms out of sight after which the conversation is asked for again

export class Transcript {
  /**
   * `act(name, data)` tells the server what the reader asked for.
   * @param {HTMLElement} element
   * @param {Act} act
   */
  constructor(element, act) {
    this.tell = act;
    /** @type {string | null} */
    this.conversation = null; // the one that is shown
    this.server = "";
    this.seen = 0; // of what the server had when it answered
    this.turned = 0; // the number of the question that brought this conversation here
    this.busyUntil = 0;
    this.left = Infinity; // when the tab went out of sight
    this.pause = RETRY_MIN_MS;
    /** @type {{ message: number, way: Way } | null} */
    this.chosen = null; // the arrow that was used
    /** @type {ReplyTurn | null} */
    this.before = null; // the reply that ran when this was last drawn
    /** @type {LiveStream | null} */
    this.channel = null;
    this.drawnWelcome = "";
    /** @type {Map<number, UserTurn | ReplyTurn | Outline>} */
    this.turns = new Map(); // message id → turn
    /** @type {Map<string, ReplyTurn>} */
    this.replies = new Map(); // generation id → reply, live or finished here
    this.column = make("div", { class: "turns", role: "group", "aria-label": t("page_conversation") });
    this.alert = make("div", { class: "alert", role: "alert", hidden: true });
    this.speaker = make("div", { class: "visually-hidden", role: "status" });
    this.welcome = make("section", { class: "welcome", hidden: true });
    element.replaceChildren(this.welcome, this.column, this.alert, this.speaker);
    this.follower = new Follower();
    this.menu = new Menu(element, t("turn_more"));
    this.details = new ReplyDetails(element);
    this.toast = new Toast(/** @type {HTMLElement} */ (document.getElementById("composer")));
    this.above = new LazyTurns(
      (data) => this.act("more", data),
      (turn, outline, more) => this.fill(turn, outline, more),
    );
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
    const { pause } = this;
    this.pause = Math.min(RETRY_MAX_MS, 2 * pause);
    setTimeout(async () => this.conversation || (await this.tell("attach")) || this.openAgain(), pause);
  }

  /**
   * Tell the server; a second click before it has answered does nothing.
   * @param {string} name
   * @param {object} [data]
   */
  act(name, data) {
    if (CHANGE_EVENTS.has(name)) {
      if (performance.now() < this.busyUntil) return;
      this.busyUntil = performance.now() + CHANGE_TIMEOUT_MS;
    }
    this.tell(name, data);
  }

  /**
   * The finished turns, and which generation runs: `{conversation, seen, asked, turns, live, alert, welcome}`.
   * @param {PageValue | undefined} value
   */
  show(value) {
    if (!value || (value.follows && value.conversation !== this.conversation)) return;
    this.busyUntil = 0;
    if (this.isLate(value)) return this.passOver(value);
    this.server = value.server;
    this.seen = value.seen;
    if (!value.follows) this.turned = value.asked;
    this.turnTo(value.conversation ?? this.conversation);
    const shown = value.turns.map((turn) => this.turnFor(turn));
    if (value.continues !== null && value.live) this.resume(value.continues, value.live);
    const running = value.live ? this.replyFor(value.live) : null;
    if (running) {
      running.awaited = true;
      shown.push(running);
    }
    place(
      this.column,
      shown.map((turn) => turn.element),
    );
    const ids = new Set(value.turns.map((turn) => turn.id));
    for (const id of this.turns.keys()) if (!ids.has(id)) this.forget(id);
    for (const [id, reply] of this.replies) if (!shown.includes(reply)) this.replies.delete(id);
    for (const turn of value.turns) this.update(turn, value);
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
    const arrived = value.turns.some((turn) => turn.id === this.chosen?.message);
    if (this.chosen && arrived && !writing()) this.turns.get(this.chosen.message)?.branches.focus(this.chosen.way);
    if (arrived || value.alert) this.chosen = null; // an update that was on its way before may come first
  }

  /**
   * What can change of a turn that is here.
   * @param {TurnValue} turn
   * @param {Surroundings} surroundings
   */
  update(turn, surroundings) {
    const known = this.turns.get(turn.id);
    if (!known) return;
    this.branch(known, turn.branch);
    if (known instanceof ReplyTurn && turn.outline !== undefined) known.keep(turn.keep_reasoning ?? null);
    else if (known instanceof ReplyTurn) known.update(/** @type {ReplyValue} */ (turn), surroundings);
    else known.update(turn, surroundings);
  }

  /**
   * Answers overtake each other. Of the conversation that is shown, the one that saw it last counts; which conversation that is,
   * the question that was put last.
   * @param {PageValue} value
   */
  isLate({ conversation, server, seen, asked }) {
    if (conversation !== this.conversation) return asked < this.turned;
    return server === this.server && seen < this.seen;
  }

  /**
   * Of an answer that comes too late only what it tells of an act is shown; the composer that came with it is as old.
   * @param {PageValue} value
   */
  passOver({ conversation, alert, deleted }) {
    if (conversation === this.conversation && alert) this.showAlert(alert);
    if (conversation === this.conversation && deleted) this.offerUndo(deleted);
    this.act("ended");
  }

  /**
   * The tab shows this conversation now; messages of another one may have the same ids.
   * @param {string | null} conversation
   */
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

  /**
   * A finished reply resumes as generation `live`: the same nodes under another name.
   * @param {number} message
   * @param {string} live
   */
  resume(message, live) {
    const reply = this.turns.get(message);
    if (!(reply instanceof ReplyTurn) || this.replies.has(live)) return;
    for (const [id, each] of this.replies) if (each === reply) this.replies.delete(id);
    this.turns.delete(message);
    this.replies.set(live, reply);
    reply.resume();
  }

  /**
   * @param {number} message
   * @param {Way} way
   */
  choose(message, way) {
    this.chosen = { message, way };
    this.follower.leave(); // the arrows stay under the pointer
    this.act("choose_branch", { message });
  }

  /**
   * Read the running reply, and say when it has ended, so that the finished turn comes.
   * @param {string | null} generation
   * @param {ReplyTurn | null} reply
   */
  follow(generation, reply) {
    if ((this.channel?.generation ?? null) === generation) return;
    this.channel?.close();
    const take = (/** @type {LiveUpdate} */ update) => {
      reply?.live(update);
      this.follower.follow();
    };
    this.channel = generation ? new LiveStream(generation, take, () => this.act("ended")) : null;
  }

  /** @param {TurnValue} turn */
  turnFor(turn) {
    const known = this.turns.get(turn.id);
    if (known && (!("isOutline" in known) || turn.outline !== undefined)) {
      if (
        known instanceof ReplyTurn &&
        turn.outline === undefined &&
        turn.role === "assistant" &&
        known.differs(turn)
      ) {
        known.resume();
        known.finish(turn);
      }
      return known;
    }
    this.above.drop(turn.id);
    const made = this.makeTurn(turn);
    this.turns.set(turn.id, made);
    return made;
  }

  /** @param {TurnValue} turn */
  makeTurn(turn) {
    if (turn.outline !== undefined) return this.above.outline(turn);
    if (turn.role === "user") return new UserTurn(turn, this.hands());
    const reply = this.replyFor(turn.generation || `message-${turn.id}`);
    reply.finish(turn);
    return reply;
  }

  /**
   * A turn of which there was only the outline.
   * @param {UserValue | ReplyValue} turn
   * @param {Outline} outline
   * @param {MoreValue} more
   */
  fill(turn, outline, more) {
    if (this.turns.get(turn.id) !== outline) return;
    this.turns.delete(turn.id);
    const known = this.turnFor(turn);
    this.update({ ...turn, branch: outline.branch }, more);
    outline.element.replaceWith(known.element);
    this.hold();
    this.follower.follow();
  }

  /** While a reply is being written, the buttons that would begin another one wait. */
  hold() {
    const busy = document.body.classList.contains("answering");
    /** @type {NodeListOf<HTMLButtonElement>} */
    const buttons = this.column.querySelectorAll('.reply :is([data-act="regenerate"], [data-act="resume"])');
    for (const button of buttons) {
      button.disabled = busy;
      greyOut(button);
    }
  }

  /**
   * @param {UserTurn | ReplyTurn | Outline} turn
   * @param {Branch | null | undefined} branch
   */
  branch(turn, branch) {
    turn.branch = branch;
    turn.branches.show(branch ?? NO_SIBLINGS);
  }

  /** @param {number} id */
  forget(id) {
    this.turns.delete(id);
    this.above.drop(id);
  }

  /** @param {string} generation */
  replyFor(generation) {
    let reply = this.replies.get(generation);
    if (!reply) {
      reply = new ReplyTurn({
        ...this.hands(),
        announce: (/** @type {string} */ text) => (this.speaker.textContent = text),
      });
      reply.onDrawn = () => this.follower.follow();
      this.replies.set(generation, reply);
    }
    return reply;
  }

  /**
   * What a turn may call.
   * @returns {Hands}
   */
  hands() {
    const { menu, details, toast } = this;
    const reasoning = (/** @type {number} */ message) => this.above.reasoning(message);
    return {
      act: (name, data) => this.act(name, data),
      choose: (message, way) => this.choose(message, way),
      reasoning,
      menu,
      details,
      toast,
    };
  }

  /** @param {Deleted} deleted */
  offerUndo({ message, count }) {
    this.toast.show(t("turn_deleted", { count }), t("turn_undo"), () => {
      this.act("restore", { message });
      field()?.focus({ preventScroll: true });
    });
  }

  /** @param {Message | null} failure */
  showAlert(failure) {
    fillAlert(this.alert, failure);
    if (failure) this.follower.toEnd();
  }

  /**
   * What an empty conversation shows: a greeting, what the model can do, and examples to click.
   * @param {Welcome | null} welcome
   */
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
