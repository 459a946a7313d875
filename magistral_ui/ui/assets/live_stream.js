// Reads a running reply as server-sent events (SSE), and reconnects after the last event seen when the connection drops.

import { loginExpired } from "./login.js";

/** @import { LiveUpdate } from "./types.js" */

const SILENCE_TIMEOUT_MS = 15_000; // of silence after which the connection counts as lost; the server sends a keep-alive every 2 s
const RETRY_DELAYS_MS = [0, 250, 500, 1000, 2000, 4000]; // before each new attempt; the last one is repeated

/**
 * The complete messages of a stream of server-sent events. Not with `for await`: Safari's streams are not async iterable.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<LiveUpdate, void>}
 */
async function* messages(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (text + decoder.decode(value, { stream: true })).split("\n\n");
      text = parts.pop() ?? "";
      for (const part of parts) yield JSON.parse(part.slice("data: ".length));
    }
  } finally {
    reader.cancel().catch(() => {}); // it fails if the connection is lost
  }
}

export class LiveStream {
  /**
   * `take(update)` gets what is new, see LiveView in sessions/live_view.py; `end()` is called until `close`, while the reply has ended.
   * @param {string} generation
   * @param {(update: LiveUpdate) => void} take
   * @param {() => void} end
   */
  constructor(generation, take, end) {
    this.generation = generation;
    this.take = take;
    this.end = end;
    /** @type {AbortController | undefined} */
    this.abort = undefined;
    /** @type {((value?: unknown) => void) | undefined} */
    this.wake = undefined;
    this.seen = 0;
    this.closed = false;
    this.run();
  }

  async run() {
    for (let failures = 0; !this.closed; failures += 1) {
      await this.pause(RETRY_DELAYS_MS[Math.min(failures, RETRY_DELAYS_MS.length - 1)]);
      if (this.closed) return;
      try {
        if (await this.read(() => (failures = 0))) {
          this.end();
          failures = Math.max(failures, 3); // if nothing follows, the next attempt is a slow one
        }
      } catch {
        // The connection failed or was cut; the next attempt will tell.
      }
    }
  }

  /**
   * Read until the reply or the connection ends; returns whether the reply has ended.
   * @param {() => void} received
   */
  async read(received) {
    this.abort = new AbortController();
    this.expect();
    const headers = { "X-Generation": this.generation, "Last-Event-ID": String(this.seen) };
    const response = await fetch("magistral/live", { headers, cache: "no-store", signal: this.abort.signal });
    if (response.status === 404) return true;
    if (response.status === 401) loginExpired();
    if (!response.ok || !response.body) throw new Error(response.statusText);
    for await (const update of messages(response.body)) {
      if (this.closed) return false;
      received();
      this.expect();
      // An update that begins with the first event has everything: what was shown as the answer has turned out to be reasoning.
      if (update.start && update.start !== this.seen) throw new Error("a piece is missing");
      this.seen = update.seen;
      this.take(update);
      if (update.state === "ended") return true;
    }
    return false;
  }

  /** Restart the timeout that ends a silent connection. */
  expect() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.abort?.abort(), SILENCE_TIMEOUT_MS);
  }

  /**
   * Wait, but at most until the network is back.
   * @param {number} time
   */
  pause(time) {
    if (!time) return undefined;
    return new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, time);
      addEventListener("online", resolve, { once: true });
    });
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.abort?.abort();
    this.wake?.();
  }
}
