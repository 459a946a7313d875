// Fetches what is left out of a long conversation: turns far above, when the reader comes near them or the browser is idle,
// and reasoning when it is opened. It knows places and texts, not how a turn looks.

import { make } from "./dom.js";

/** @import { MoreValue, Outline, OutlineValue, ReplyValue, UserValue } from "./types.js" */

const LOAD_MARGIN = "1500px 0px"; // so far ahead of the reader
const TURNS_PER_REQUEST = 20; // turns in one question
const RETRY_MS = 10_000; // ms after which a question is asked again
const CHARACTERS_PER_LINE = 90; // characters, for a guess at how high a turn will be

/** @type {(job: () => void, options?: IdleRequestOptions) => void} */
const idle = window.requestIdleCallback ?? ((job) => setTimeout(job, 50));

export class LazyTurns {
  /**
   * `ask(data)` asks the server, whose answer comes to `take`; `draw(turn, outline, answer)` puts a turn in its place.
   * @param {(data: object) => void} ask
   * @param {(turn: UserValue | ReplyValue, outline: Outline, more: MoreValue) => void} draw
   */
  constructor(ask, draw) {
    this.ask = ask;
    this.draw = draw;
    this.observer = new IntersectionObserver((entries) => this.look(entries), { rootMargin: LOAD_MARGIN });
    /** @type {Map<number, Outline>} */
    this.outlines = new Map(); // by message, from the top of the conversation
    /** @type {Set<number>} */
    this.near = new Set(); // messages that the reader is close to
    /** @type {{ turn: UserValue | ReplyValue, more: MoreValue }[]} */
    this.arrived = []; // turns that are not drawn yet
    /** @type {Map<number, ((text: string) => void)[]>} */
    this.readers = new Map(); // by message, those who wait for its reasoning
    this.number = 0; // of the question that is open
    this.asking = false;
    this.working = false;
  }

  /** Another conversation is shown. */
  reset() {
    this.observer.disconnect();
    clearTimeout(this.timer);
    this.outlines.clear();
    this.near.clear();
    this.arrived = [];
    this.readers.clear();
    this.number += 1;
    this.asking = false;
  }

  /**
   * The place of a turn that is not here yet.
   * @param {OutlineValue} value
   * @returns {Outline}
   */
  outline({ id, role, outline: length }) {
    const known = this.outlines.get(id);
    if (known) return known;
    const element = make("article", {
      class: `turn outline ${role === "user" ? "user" : "reply"}`,
      "aria-busy": "true",
    });
    element.style.minBlockSize = `${4 + 1.65 * Math.ceil(length / CHARACTERS_PER_LINE)}rem`;
    element.dataset.message = String(id);
    /** @type {Outline} */
    const found = { id, element, branches: { show() {}, focus() {} }, update() {}, isOutline: true };
    this.outlines.set(id, found);
    this.observer.observe(element);
    this.next();
    return found;
  }

  /**
   * A turn is here, or gone.
   * @param {number} id
   */
  drop(id) {
    const outline = this.outlines.get(id);
    if (!outline) return;
    this.observer.unobserve(outline.element);
    this.outlines.delete(id);
    this.near.delete(id);
  }

  /**
   * The whole reasoning of a reply.
   * @param {number} message
   * @returns {Promise<string>}
   */
  reasoning(message) {
    return new Promise((resolve) => {
      this.readers.set(message, [...(this.readers.get(message) ?? []), resolve]);
      this.next();
    });
  }

  /** @param {IntersectionObserverEntry[]} entries */
  look(entries) {
    for (const { target, isIntersecting } of entries) {
      const id = Number(/** @type {HTMLElement} */ (target).dataset.message);
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
    const waiting = new Set(this.arrived.map(({ turn }) => turn.id));
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

  /**
   * The server's answer.
   * @param {MoreValue | undefined} value
   */
  take(value) {
    if (!value || value.number !== this.number) return;
    clearTimeout(this.timer);
    this.asking = false;
    const { message, text } = value.reasoning;
    if (message !== null) {
      for (const resolve of this.readers.get(message) ?? []) resolve(text);
      this.readers.delete(message);
    }
    this.arrived.push(...value.turns.map((turn) => ({ turn, more: value })));
    // What the server no longer knows is not asked for again.
    if (!value.turns.length && message === null) this.outlines.clear();
    this.work();
    this.next();
  }

  /** Draw what has arrived: what is near at once, the rest one by one when the browser has time. */
  work() {
    const near = this.arrived.filter(({ turn }) => this.near.has(turn.id));
    this.arrived = this.arrived.filter(({ turn }) => !this.near.has(turn.id));
    for (const { turn, more } of near) this.put(turn, more);
    if (this.working || !this.arrived.length) return;
    this.working = true;
    idle(() => {
      this.working = false;
      const next = this.arrived.shift();
      if (next) this.put(next.turn, next.more);
      this.work();
    });
  }

  /**
   * @param {UserValue | ReplyValue} turn
   * @param {MoreValue} more
   */
  put(turn, more) {
    const outline = this.outlines.get(turn.id);
    if (outline) this.draw(turn, outline, more);
    this.drop(turn.id);
  }
}
