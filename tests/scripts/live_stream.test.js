// A running reply, read over lines that drop, stall and lose pieces.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { settled } from "./page.js";

const { LiveStream } = await import("../../magistral_ui/ui/assets/live_stream.js");

/** Requests in their order; each is answered by the next of `answers`. */
let requests = [];
let answers = [];
let stream = null;

/** The body of an answer: each update as a server-sent event, cut anywhere into chunks of `size` bytes. */
function body(updates, { size = 7, cut = 0 } = {}) {
  const text = updates.map((update) => `data: ${JSON.stringify(update)}\n\n`).join("");
  const bytes = new TextEncoder().encode(text).slice(0, cut ? -cut : undefined);
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
}

const ok = (updates, options) => () => new Response(body(updates, options));
const status = (code) => () => new Response("", { status: code });

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  requests = [];
  globalThis.fetch = async (address, { headers, signal }) => {
    requests.push({ address, headers, signal });
    const answer = answers.shift();
    if (!answer)
      return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted"))));
    return answer();
  };
});

afterEach(() => {
  stream?.close();
  mock.timers.reset();
});

/** Read with these answers, letting `waits` retry delays pass; what was taken, and how often the end was told. */
async function read(given, waits = 0) {
  answers = given;
  const taken = [];
  let ends = 0;
  stream = new LiveStream(
    "the generation",
    (update) => taken.push(update),
    () => (ends += 1),
  );
  await settled(60);
  for (; waits > 0; waits -= 1) {
    mock.timers.tick(4_000);
    await settled(60);
  }
  return { taken: taken.map(({ answer }) => answer).join(""), ends };
}

test("updates come whole, however the bytes were cut", async () => {
  for (const size of [1, 2, 3, 1000]) {
    const updates = [
      { start: 0, seen: 2, state: "answering", answer: "Zürich " },
      { start: 2, seen: 3, state: "ended", answer: "日本" },
    ];
    const { taken, ends } = await read([ok(updates, { size })]);
    assert.equal(taken, "Zürich 日本");
    assert.equal(ends, 1);
    stream.close();
  }
});

test("a line that drops is taken up again behind the last event seen", async () => {
  const first = { start: 0, seen: 5, state: "answering", answer: "one " };
  const second = { start: 5, seen: 6, state: "ended", answer: "two" };
  const { taken, ends } = await read([ok([first]), ok([second])], 1);
  assert.equal(taken, "one two");
  assert.equal(ends, 1);
  assert.deepEqual(
    requests.map(({ headers }) => headers["Last-Event-ID"]),
    ["0", "5"],
  );
  assert.ok(requests.every(({ headers }) => headers["X-Generation"] === "the generation"));
});

test("half an event at the end of a cut line is not taken", async () => {
  const first = { start: 0, seen: 1, state: "answering", answer: "one " };
  const lost = { start: 1, seen: 2, state: "answering", answer: "lost" };
  const again = { start: 1, seen: 2, state: "ended", answer: "two" };
  const { taken } = await read([ok([first, lost], { cut: 4 }), ok([again])], 1);
  assert.equal(taken, "one two");
});

test("an update that does not follow on is asked for again", async () => {
  const first = { start: 0, seen: 3, state: "answering", answer: "one " };
  const skips = { start: 7, seen: 9, state: "answering", answer: "nine" };
  const { taken } = await read([ok([first, skips]), ok([{ start: 3, seen: 9, state: "ended", answer: "all" }])], 1);
  assert.equal(taken, "one all");
  assert.equal(requests[1].headers["Last-Event-ID"], "3");
});

test("an update from the beginning takes the place of everything", async () => {
  const first = { start: 0, seen: 3, state: "answering", answer: "one " };
  const anew = { start: 0, seen: 4, state: "ended", answer: "anew" };
  assert.equal((await read([ok([first, anew])])).taken, "one anew");
});

test("a reply that the server does not know any more has ended", async () => {
  assert.equal((await read([status(404)])).ends, 1);
});

test("a server that is busy is asked again", async () => {
  const { ends } = await read([status(503), status(503), status(404)], 2);
  assert.equal(ends, 1);
  assert.equal(requests.length, 3);
});

test("a line that says nothing is given up", async () => {
  await read([]);
  assert.equal(requests[0].signal.aborted, false);
  mock.timers.tick(15_000);
  assert.equal(requests[0].signal.aborted, true);
});

test("nothing is asked for once it is closed", async () => {
  await read([status(503)]);
  stream.close();
  mock.timers.tick(60_000);
  await settled(20);
  assert.equal(requests.length, 1);
});
