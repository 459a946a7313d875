// Lazy loading of a long conversation: fetches turns far above when the reader comes near them or the browser is idle,
// and reasoning when it is opened. It does not know how a turn looks.

import { make } from "./dom.js";

/** @import { MoreValue, Outline, OutlineValue, ReplyValue, UserValue } from "./types.js" */

const LOAD_MARGIN = "1500px 0px"; // how far ahead of the reader to load
const TURNS_PER_REQUEST = 20;
const RETRY_MS = 10_000; // after which a request is repeated
const CHARACTERS_PER_LINE = 90; // to estimate the height of a turn

/** @type {(job: () => void, options?: IdleRequestOptions) => void} */
const idle = window.requestIdleCallback ?? ((job) => setTimeout(job, 50));

export class LazyTurns {
  /**
   * `ask(data)` asks the server, whose response is passed to `take`; `draw(turn, outline, answer)` renders a turn.
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
    this.readers = new Map(); // by message, the callbacks that wait for its reasoning
    this.number = 0; // of the running request
    this.asking = false;
    this.working = false;
  }

  /** Start over for another conversation. */
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
   * The placeholder of a turn that is not loaded yet.
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
   * Forget a turn that is loaded, or gone.
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
   * The complete reasoning of a reply.
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

  /** Send the next request, unless one is running: first for opened reasoning, then for near turns, then from the bottom up. */
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
   * Accept the server's response.
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
    // Do not ask again for what the server no longer has.
    if (!value.turns.length && message === null) this.outlines.clear();
    this.work();
    this.next();
  }

  /** Render what has arrived: near turns at once, the others one by one when the browser is idle. */
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
