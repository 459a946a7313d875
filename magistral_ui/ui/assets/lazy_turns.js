// Fetches what a long conversation did not bring along: turns far above, when the reader comes near them or when there is
// nothing else to do, and reasoning when it is opened. It knows places and texts, not how a turn looks.

import { make } from "./dom.js";

const LOAD_MARGIN = "1500px 0px"; // so far ahead of the reader
const TURNS_PER_REQUEST = 20; // turns in one question
const RETRY_MS = 10_000; // ms after which a question is asked again
const CHARACTERS_PER_LINE = 90; // characters, for a guess at how high a turn will be

const idle = window.requestIdleCallback ?? ((job) => setTimeout(job, 50));

export class LazyTurns {
  /** `ask(data)` asks the server, whose answer comes to `take`; `draw(turn, outline, answer)` puts a turn in its place. */
  constructor(ask, draw) {
    Object.assign(this, { ask, draw });
    this.observer = new IntersectionObserver((entries) => this.look(entries), { rootMargin: LOAD_MARGIN });
    this.reset();
  }

  /** Another conversation is shown. */
  reset() {
    this.observer.disconnect();
    clearTimeout(this.timer);
    this.outlines = new Map(); // message id → outline, from the top of the conversation
    this.near = new Set(); // ids that the reader is close to
    this.arrived = []; // turns that are not drawn yet
    this.readers = new Map(); // message id → those who wait for its reasoning
    this.number = (this.number ?? 0) + 1; // of the question that is open
    this.asking = false;
  }

  /** The place of a turn that is not here yet. */
  outline({ id, role, outline: length }) {
    const known = this.outlines.get(id);
    if (known) return known;
    const element = make("article", {
      class: `turn outline ${role === "user" ? "user" : "reply"}`,
      "aria-busy": "true",
    });
    element.style.minBlockSize = `${4 + 1.65 * Math.ceil(length / CHARACTERS_PER_LINE)}rem`;
    element.dataset.message = id;
    const found = { id, element, branches: { show() {}, focus() {} }, update() {}, isOutline: true };
    this.outlines.set(id, found);
    this.observer.observe(element);
    this.next();
    return found;
  }

  /** A turn is here, or gone. */
  drop(id) {
    const outline = this.outlines.get(id);
    if (!outline) return;
    this.observer.unobserve(outline.element);
    this.outlines.delete(id);
    this.near.delete(id);
  }

  /** The whole reasoning of a reply. */
  reasoning(message) {
    return new Promise((resolve) => {
      this.readers.set(message, [...(this.readers.get(message) ?? []), resolve]);
      this.next();
    });
  }

  look(entries) {
    for (const { target, isIntersecting } of entries) {
      const id = Number(target.dataset.message);
      if (isIntersecting && this.outlines.has(id)) this.near.add(id);
      else this.near.delete(id);
    }
    this.work();
    this.next();
  }

  /** Ask the next question, unless one is open: what is opened first, then what is near, then from the bottom up. */
  next() {
    if (this.asking) return;
    this.asking = true;
    idle(() => this.question(), { timeout: 200 });
  }

  question() {
    const waiting = new Set(this.arrived.map((turn) => turn.id));
    const missing = [...this.near, ...[...this.outlines.keys()].reverse()].filter((id) => !waiting.has(id));
    const messages = [...new Set(missing)].slice(0, TURNS_PER_REQUEST);
    const [reasoning] = this.readers.keys();
    this.asking = messages.length > 0 || reasoning !== undefined;
    if (!this.asking) return;
    this.number += 1;
    this.ask({ messages: reasoning === undefined || this.near.size ? messages : [], reasoning, number: this.number });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.asking = false;
      this.next();
    }, RETRY_MS);
  }

  /** The server's answer. */
  take(value) {
    if (!value || value.number !== this.number) return;
    clearTimeout(this.timer);
    this.asking = false;
    const { message, text } = value.reasoning;
    for (const resolve of this.readers.get(message) ?? []) resolve(text);
    this.readers.delete(message);
    this.arrived.push(...value.turns.map((turn) => ({ ...turn, more: value })));
    // What the server does not know any more is not asked for again.
    if (!value.turns.length && message === null) this.outlines.clear();
    this.work();
    this.next();
  }

  /** Draw what has arrived: what is near at once, the rest one by one when the browser has time. */
  work() {
    const near = this.arrived.filter((turn) => this.near.has(turn.id));
    this.arrived = this.arrived.filter((turn) => !this.near.has(turn.id));
    for (const turn of near) this.put(turn);
    if (this.working || !this.arrived.length) return;
    this.working = true;
    idle(() => {
      this.working = false;
      const turn = this.arrived.shift();
      if (turn) this.put(turn);
      this.work();
    });
  }

  put(turn) {
    if (this.outlines.has(turn.id)) this.draw(turn, this.outlines.get(turn.id), turn.more);
    this.drop(turn.id);
  }
}
