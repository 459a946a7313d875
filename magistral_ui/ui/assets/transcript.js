// The conversation: finished turns by their id, the live turn by its generation; nodes are updated, never rebuilt.

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
const CHANGE_TIMEOUT_MS = 5_000; // for which a requested change blocks others if there is no response

const NO_SIBLINGS = { number: 1, count: 1, previous: null, next: null }; // a message without alternatives
const [RETRY_MIN_MS, RETRY_MAX_MS] = [2_000, 60_000]; // until a failed request for the conversation is repeated, at first and at most
const HIDDEN_MS = 15_000; // in the background after which the conversation is requested again

export class Transcript {
  /**
   * `act(name, data)` sends the visitor's action to the server.
   * @param {HTMLElement} element
   * @param {Act} act
   */
  constructor(element, act) {
    this.tell = act;
    /** @type {string | null} */
    this.conversation = null; // the one that is shown
    this.server = "";
    this.seen = 0; // the version of the shown conversation
    this.turned = 0; // the number of the request that opened this conversation
    this.busyUntil = 0;
    this.left = Infinity; // when the tab went into the background
    this.pause = RETRY_MIN_MS;
    /** @type {{ message: number, way: Way } | null} */
    this.chosen = null; // the branch arrow that was used
    /** @type {ReplyTurn | null} */
    this.before = null; // the reply that was running at the last update
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
    // The general setting shows at every reply without one of its own, see transcript.css.
    settings.follow(({ keep_reasoning: kept }) => (document.body.dataset.reasoning = kept ? "kept" : "left-out"));
    // When the visitor comes back, request what was said elsewhere, or while the connection was down.
    addEventListener("online", () => this.act("ended"));
    addEventListener("unopened", () => this.openAgain());
    if (window.magistralUnopened) this.openAgain(); // it failed before this was created
    addEventListener("visibilitychange", () => {
      if (document.hidden) this.left = performance.now();
      else if (performance.now() - this.left > HIDDEN_MS) this.act("ended");
    });
  }

  /** Request the conversation again: without one, nothing can be sent. */
  openAgain() {
    const { pause } = this;
    this.pause = Math.min(RETRY_MAX_MS, 2 * pause);
    setTimeout(async () => this.conversation || (await this.tell("attach")) || this.openAgain(), pause);
  }

  /**
   * Send an action to the server; a second click before its response does nothing.
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
   * Show the finished turns, and the running generation: `{conversation, seen, asked, turns, live, alert, welcome}`.
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
    else if (this.before && !running) this.showAlert(null); // what was refused while it was running is possible now
    if (value.deleted) this.offerUndo(value.deleted);
    document.body.classList.toggle("answering", Boolean(value.live));
    this.hold();
    if (running && running !== this.before) this.follower.toEnd();
    else this.follower.follow();
    this.before = running;
    const arrived = value.turns.some((turn) => turn.id === this.chosen?.message);
    if (this.chosen && arrived && !writing()) this.turns.get(this.chosen.message)?.branches.focus(this.chosen.way);
    if (arrived || value.alert) this.chosen = null; // an earlier update may arrive first
  }

  /**
   * Update what can change in a loaded turn.
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
   * Responses can overtake each other. For the shown conversation, the one with the latest version counts; the latest request
   * decides which conversation is shown.
   * @param {PageValue} value
   */
  isLate({ conversation, server, seen, asked }) {
    if (conversation !== this.conversation) return asked < this.turned;
    return server === this.server && seen < this.seen;
  }

  /**
   * Of a late response, only the result of its action is shown; its composer is outdated, too.
   * @param {PageValue} value
   */
  passOver({ conversation, alert, deleted }) {
    if (conversation === this.conversation && alert) this.showAlert(alert);
    if (conversation === this.conversation && deleted) this.offerUndo(deleted);
    this.act("ended");
  }

  /**
   * Switch to this conversation; messages of another one may have the same ids.
   * @param {string | null} conversation
   */
  turnTo(conversation) {
    if (this.conversation && conversation !== this.conversation) {
      for (const reply of this.replies.values()) reply.leave();
      this.turns.clear();
      this.above.reset();
      this.replies.clear();
      this.follower.rejoin();
      this.toast.hide(); // its Undo is for the other conversation
    }
    this.conversation = conversation;
    if (conversation) sessionStorage.setItem("magistral-ui-conversation", conversation); // see server.js
    dispatchEvent(new CustomEvent("conversation", { detail: { id: conversation } })); // for the list of conversations
  }

  /**
   * Make a finished reply live again as generation `live`, with the same nodes.
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
    this.follower.leave(); // so that the arrows stay under the pointer
    this.act("choose_branch", { message });
  }

  /**
   * Follow the running reply, and request the finished turn when it has ended.
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
   * Render a turn of which there was only the outline.
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

  /** Disable the buttons that would begin another reply while one is being written. */
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
   * The callbacks for a turn.
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
   * Show the welcome of an empty conversation: a greeting, what the model can do, and examples to click.
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
