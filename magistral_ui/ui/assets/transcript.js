// The conversation in one column: finished turns by their id, the live turn by its generation; nodes are never rebuilt.

import { make } from "./dom.js";
import { Follower } from "./follower.js";
import { sentence, t } from "./strings.js";
import { ReplyTurn, UserTurn } from "./turns.js";

export class Transcript {
  /** `act(name, data)` tells the server what the reader asked for. */
  constructor(element, act) {
    this.act = act;
    this.turns = new Map(); // message id → turn
    this.replies = new Map(); // generation id → reply, live or finished here
    this.column = make("div", { class: "turns", role: "group", "aria-label": t("page_conversation") });
    this.alert = make("div", { class: "alert", role: "alert", hidden: true });
    this.speaker = make("div", { class: "visually-hidden", role: "status" });
    this.welcome = make("section", { class: "welcome", hidden: true });
    element.replaceChildren(this.welcome, this.column, this.alert, this.speaker);
    this.follower = new Follower();
  }

  /** The finished turns, and which generation runs: `{turns, live, alert, welcome}`. */
  show(value) {
    if (!value) return;
    const shown = value.turns.map((turn) => this.turnFor(turn));
    if (value.continues !== null) this.takeUp(value.continues, value.live);
    const running = value.live ? this.replyFor(value.live) : null;
    if (running) shown.push(running);
    this.place(shown);
    for (const id of this.turns.keys()) if (!value.turns.some((turn) => turn.id === id)) this.turns.delete(id);
    for (const [id, reply] of this.replies) if (!shown.includes(reply)) this.replies.delete(id);
    for (const { id, branch } of value.turns) this.turns.get(id).branches.show(branch);
    this.running = value.live;
    if (running && this.lastLive?.generation === value.live) running.live(this.lastLive);
    this.showWelcome(shown.length ? null : value.welcome);
    if (value.alert !== undefined) this.showAlert(value.alert);
    document.body.classList.toggle("answering", Boolean(value.live));
    if (running && running !== this.before) this.follower.toEnd();
    else this.follower.follow();
    this.before = running;
    const arrived = this.chosen && value.turns.some((turn) => turn.id === this.chosen.message);
    if (arrived) this.turns.get(this.chosen.message).branches.focus(this.chosen.way);
    if (arrived || value.alert) this.chosen = null; // an update that was on its way before may come first
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

  /** The running reply as it stands. */
  live(value) {
    if (!value) return;
    this.lastLive = value;
    if (value.generation !== this.running) return;
    this.replyFor(value.generation).live(value);
    this.follower.follow();
  }

  turnFor(turn) {
    let known = this.turns.get(turn.id);
    if (known) return known;
    if (turn.role === "user") known = new UserTurn(turn, this.hands());
    else {
      known = this.replyFor(turn.generation || `message-${turn.id}`);
      known.finish(turn);
    }
    this.turns.set(turn.id, known);
    return known;
  }

  replyFor(generation) {
    let reply = this.replies.get(generation);
    if (!reply) {
      reply = new ReplyTurn({ ...this.hands(), announce: (text) => (this.speaker.textContent = text) });
      reply.answer.onDrawn = () => this.follower.follow();
      this.replies.set(generation, reply);
    }
    return reply;
  }

  hands() {
    return { act: this.act, choose: (message, way) => this.choose(message, way) };
  }

  /** Put the turns' elements into the column in order, moving only what is out of place. */
  place(shown) {
    const wanted = new Set(shown.map((turn) => turn.element));
    for (const node of [...this.column.children]) if (!wanted.has(node)) node.remove();
    shown.forEach((turn, index) => {
      if (this.column.children[index] !== turn.element) this.column.insertBefore(turn.element, this.column.children[index] ?? null);
    });
  }

  showAlert(failure) {
    this.alert.hidden = !failure;
    if (!failure) return;
    const dismiss = make("button", { type: "button", class: "quiet" }, t("turn_dismiss"));
    dismiss.addEventListener("click", () => (this.alert.hidden = true));
    this.alert.replaceChildren(make("p", {}, sentence(failure)), dismiss);
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
        make("span", { lang: language }, text),
      );
      button.addEventListener("click", () => document.body.dataset.model === "ready" && this.act("example", { index }));
      return make("li", {}, button);
    });
    this.welcome.replaceChildren(
      make("h2", {}, t(welcome.demo ? "page_greeting_demo" : "page_greeting")),
      make("p", {}, t(welcome.description)),
      make("ul", { class: "examples", "aria-label": t("page_examples") }, ...examples),
    );
  }
}
