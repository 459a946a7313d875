// The newest words stay in sight unless the reader has scrolled away.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import "./page.js";

const { Follower } = await import("../../magistral_ui/ui/assets/follower.js");

/** The page as far as scrolling goes. */
const view = { scrollTop: 0, scrollHeight: 1_000, clientHeight: 1_000 };
let follower = null;

Object.defineProperty(document, "scrollingElement", { get: () => view });
Object.defineProperty(document, "hidden", { value: true }); // scrolls at once, not with the next frame

/** The page has `height`, and the browser or the reader is at `top`. */
function scrolled(top, height = view.scrollHeight) {
  Object.assign(view, { scrollTop: top, scrollHeight: height });
  follower.look();
}

beforeEach(() => {
  Object.assign(view, { scrollTop: 0, scrollHeight: 1_000, clientHeight: 1_000 });
  follower = new Follower();
  follower.rest(false);
  follower.look();
});

test("it follows what grows", () => {
  view.scrollHeight = 3_000;
  follower.follow();
  assert.equal(view.scrollTop, 3_000);
});

test("a reader who scrolls up is left there, and sees the way back", () => {
  scrolled(2_000, 3_000);
  scrolled(1_200);
  assert.equal(follower.following, false);
  assert.equal(follower.button.hidden, false);
  view.scrollHeight = 4_000;
  follower.follow();
  assert.equal(view.scrollTop, 1_200);
});

test("near the end is at the end", () => {
  scrolled(2_000, 3_000);
  scrolled(1_200);
  scrolled(1_930);
  assert.equal(follower.following, true);
  assert.equal(follower.button.hidden, true);
});

test("what the browser itself moves, because something above became smaller, is no leaving", () => {
  scrolled(2_000, 3_000);
  scrolled(1_500, 2_600);
  assert.equal(follower.following, true);
  assert.equal(view.scrollTop, 2_600);
});

test("the same movement with a hand on the page is one", () => {
  scrolled(2_000, 3_000);
  dispatchEvent(new Event("touchmove"));
  scrolled(1_500, 2_600);
  assert.equal(follower.following, false);
});

test("a wheel turned up leaves at once", () => {
  scrolled(2_000, 3_000);
  dispatchEvent(Object.assign(new Event("wheel"), { deltaY: -1 }));
  assert.equal(follower.following, false);
});

test("the button leads to the end", () => {
  scrolled(2_000, 3_000);
  scrolled(100);
  follower.button.click();
  assert.equal(view.scrollTop, 3_000);
  assert.equal(follower.following, true);
});

test("a page where nothing is said yet is read from its beginning", () => {
  scrolled(500, 3_000);
  follower.rest(true);
  assert.equal(view.scrollTop, 0);
  follower.follow();
  assert.equal(view.scrollTop, 0);
});

test("a composer that becomes higher covers nothing", () => {
  scrolled(2_000, 3_000);
  follower.cover(100);
  view.scrollHeight = 3_200;
  view.clientHeight = 900;
  follower.cover(500);
  assert.equal(view.scrollTop, 3_200);
  mock.reset();
});
