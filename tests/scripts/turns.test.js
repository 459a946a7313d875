// A reply while it grows and as it ended, its arrows and its menu, and turns that are fetched later.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { settled } from "./page.js";

const { BranchView } = await import("../../magistral_ui/ui/assets/branches.js");
const { LazyTurns } = await import("../../magistral_ui/ui/assets/lazy_turns.js");
const { ReasoningView } = await import("../../magistral_ui/ui/assets/reasoning.js");
const { asMarkdown } = await import("../../magistral_ui/ui/assets/reply_footer.js");
const { ReplyTurn } = await import("../../magistral_ui/ui/assets/turns.js");
const { showUnsupported, unsupported } = await import("../../magistral_ui/ui/assets/unsupported.js");
const { t } = await import("../../magistral_ui/ui/assets/i18n.js");

const USAGE = { prompt_tokens: 5, reused_tokens: 0, reasoning_tokens: 2, answer_tokens: 3, completion_tokens: 5 };
const FINISHED = {
  id: 2,
  role: "assistant",
  reasoning: 5,
  answer: "Four",
  closed: true,
  ended: "stop",
  may_continue: false,
  failure: null,
  notices: [],
  usage: { ...USAGE, first_token_seconds: 0.5, reasoning_seconds: 1, total_seconds: 2, tokens_per_second: 12.34 },
  params: null,
  source: null,
  edited: false,
  keep_reasoning: null,
};
const UPDATE = { start: 0, seen: 1, reasoning: "", answer: "", seconds: 0, reasoning_tokens: 0, answer_now: false };

let asked = [];
let told = [];

function reply() {
  return new ReplyTurn({
    act: (...what) => asked.push(what),
    choose: (...what) => asked.push(["choose", ...what]),
    reasoning: async (message) => `reasoning of ${message}`,
    announce: (text) => told.push(text),
    menu: { attach() {} },
    details: { show() {} },
    toast: { show() {} },
  });
}

beforeEach(() => {
  [asked, told] = [[], []];
  showUnsupported({});
});

test("a reply says what it waits for, thinks and answers", async () => {
  const turn = reply();
  turn.live({ ...UPDATE, state: "queued", position: 3 });
  assert.equal(turn.status.textContent, t("turn_queued", { position: 3 }));
  turn.live({ ...UPDATE, start: 1, state: "thinking", reasoning: "2 + ", reasoning_tokens: 2 });
  assert.equal(turn.status.hidden, true);
  assert.equal(turn.answerNow.hidden, false);
  turn.answerNow.click();
  assert.deepEqual(asked, [["answer_now"]]);
  turn.live({ ...UPDATE, start: 2, state: "answering", reasoning: "2", answer: "Fo", reasoning_tokens: 3 });
  assert.equal(await turn.reasoning.whole(), "2 + 2");
  turn.finish(FINISHED);
  assert.equal(turn.element.dataset.state, "done");
  assert.equal(turn.status.isConnected, false);
  turn.leave();
});

test("what was called the answer may turn out to be reasoning", async () => {
  const turn = reply();
  turn.live({ ...UPDATE, state: "answering", answer: "2 + 2" });
  turn.live({ ...UPDATE, state: "thinking", reasoning: "2 + 2", reasoning_tokens: 3 });
  assert.equal(turn.answer.received, 0);
  assert.equal(await turn.reasoning.whole(), "2 + 2");
  turn.leave();
});

const NOTES = [
  [{}, []],
  [{ ended: "cancelled" }, [() => t("ended_cancelled")]],
  [{ answer: " " }, [() => t("turn_no_answer")]],
  [{ answer: "", reasoning: 0 }, [() => t("turn_empty")]],
  [{ ended: "length" }, [() => t("export_ended_length")]],
];
for (const [changes, expected] of NOTES) {
  test(`the notes below a reply with ${JSON.stringify(changes)}`, () => {
    const turn = reply();
    turn.finish({ ...FINISHED, ...changes });
    const notes = [...turn.notes.children].map((note) => note.textContent);
    assert.deepEqual(
      notes,
      expected.map((text) => text()),
    );
  });
}

test("where the server cannot continue a reply that the app interrupted, nothing tells to", () => {
  const turn = reply();
  const place = document.createElement("div");
  place.id = "turns";
  place.append(turn.element);
  document.body.append(place);
  turn.finish({ ...FINISHED, ended: "cancelled", may_continue: true, notices: [{ key: "cut_off", values: {} }] });
  assert.equal(turn.notes.textContent, t("notice_cut_off"));
  showUnsupported({ continue_reasoning: "missing_resume" });
  assert.equal(turn.notes.textContent, t("notice_cut_off_for_good"));
  showUnsupported({});
  assert.equal(turn.notes.textContent, t("notice_cut_off"));
  place.remove();
});

test("its end is told where it was seen running", async () => {
  const turn = reply();
  turn.awaited = true;
  turn.finish(FINISHED);
  assert.deepEqual(told, ["Four"]);
});

test("a reply that was continued elsewhere differs", () => {
  const turn = reply();
  turn.finish(FINISHED);
  assert.equal(turn.differs(FINISHED), false);
  assert.equal(turn.differs({ ...FINISHED, answer: "Four." }), true);
});

test("a reply that goes on keeps what is read until its text has come again", () => {
  const turn = reply();
  turn.finish({ ...FINISHED, ended: "cancelled" });
  const { answer } = turn;
  turn.resume();
  assert.equal(turn.answer, answer);
  turn.live({ ...UPDATE, state: "answering", answer: "Four and" });
  assert.notEqual(turn.answer, answer);
  assert.equal(turn.answer.received, 8);
  turn.leave();
});

test("reasoning is fetched when it is opened, and only where the page does not have it", async () => {
  const view = new ReasoningView();
  const fetch = mock.fn(async () => "fetched");
  view.complete(7, fetch);
  assert.equal(await view.whole(), "fetched");
  const here = new ReasoningView();
  here.add("all of");
  here.complete(6, fetch);
  assert.equal(await here.whole(), "all of");
  assert.equal(fetch.mock.callCount(), 1);
});

test("reasoning as it was written, whatever its pieces", async () => {
  const view = new ReasoningView();
  view.element.open = true;
  const text = `${"word ".repeat(3_000)}\n\n${"x".repeat(20_000)}\n`;
  for (let at = 0; at < text.length; at += 777) view.add(text.slice(at, at + 777));
  assert.equal(await view.whole(), text);
  assert.equal(
    [...view.text.querySelectorAll("div")]
      .map((block) => block.textContent)
      .join("\n")
      .replace(/\n/g, ""),
    text.replace(/\n/g, ""),
  );
});

test("arrows between alternatives", () => {
  const view = new BranchView((...what) => asked.push(what));
  view.show({ number: 1, count: 1, previous: null, next: null });
  assert.equal(view.element.hidden, true);
  view.show({ number: 2, count: 2, previous: 4, next: null });
  assert.equal(view.element.hidden, false);
  assert.deepEqual([view.previous.disabled, view.next.disabled], [false, true]);
  view.previous.click();
  assert.deepEqual(asked, [[4, "previous"]]);
  document.body.append(view.element);
  view.focus("next");
  assert.equal(document.activeElement, view.previous);
});

test("reasoning and answer as Markdown", () => {
  const text = asMarkdown(" one\n\ntwo ", { answer: "Three\n", edited: false });
  assert.equal(text, `> **${t("reasoning_heading")}**\n>\n> one\n>\n> two\n\nThree\n`);
});

test("what a server cannot do is greyed out with the reason", () => {
  showUnsupported({ answer_now: "missing_answer_now" });
  assert.equal(unsupported("answer_now"), t("missing_answer_now"));
  const turn = reply();
  turn.live({ ...UPDATE, state: "thinking" });
  assert.equal(turn.answerNow.disabled, true);
  assert.equal(turn.answerNow.title, t("missing_answer_now"));
  turn.leave();
});

test("turns far above are asked for near ones first, and drawn in their places", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const questions = [];
  const drawn = [];
  const turns = new LazyTurns(
    (data) => questions.push(data),
    (turn, outline) => drawn.push([turn.id, outline.id]),
  );
  for (const id of [1, 2, 3]) turns.outline({ id, role: "user", outline: 100 });
  turns.look([{ target: turns.outlines.get(2).element, isIntersecting: true }]);
  mock.timers.tick(50);
  assert.deepEqual(questions[0].messages, [2, 3, 1]);
  const value = { number: questions[0].number, turns: [{ id: 2 }, { id: 3 }], reasoning: { message: null, text: "" } };
  turns.take({ ...value, number: -1 });
  assert.deepEqual(drawn, []);
  turns.take(value);
  assert.deepEqual(drawn, [[2, 2]]);
  mock.timers.tick(50);
  assert.deepEqual(drawn, [
    [2, 2],
    [3, 3],
  ]);
  assert.deepEqual(questions.at(-1).messages, [1]);
  turns.take({ ...value, number: questions.at(-1).number, turns: [{ id: 1 }] });
  const reasoning = turns.reasoning(7);
  mock.timers.tick(50);
  assert.equal(questions.at(-1).reasoning, 7);
  turns.take({ number: questions.at(-1).number, turns: [], reasoning: { message: 7, text: "because" } });
  assert.equal(await reasoning, "because");
  mock.timers.reset();
  await settled();
});
