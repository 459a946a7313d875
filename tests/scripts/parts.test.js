// Small parts of the page: elements, notices, menus, the composer, the context's use, and files that are taken in.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import "./page.js";

const composer = await import("../../magistral_ui/ui/assets/composer.js");
const { make, place } = await import("../../magistral_ui/ui/assets/dom.js");
const { brought, checkFile } = await import("../../magistral_ui/ui/assets/file_kinds.js");
const { t } = await import("../../magistral_ui/ui/assets/i18n.js");
const { memoryPlan } = await import("../../magistral_ui/ui/assets/memory_plan.js");
const { placeAt } = await import("../../magistral_ui/ui/assets/menu.js");
const { Toast } = await import("../../magistral_ui/ui/assets/toast.js");

afterEach(() => mock.timers.reset());

test("elements are made of texts, never of HTML", () => {
  const node = make("p", { class: "a", "aria-label": "b", data: { c: "d" }, title: null }, "<b>", null, make("i"));
  assert.equal(node.outerHTML, '<p class="a" aria-label="b" data-c="d">&lt;b&gt;<i></i></p>');
});

test("nodes are put in order, and only those that are out of place are moved", () => {
  const [a, b, c, d] = ["a", "b", "c", "d"].map((id) => make("i", { id }));
  const parent = make("div", {}, a, b, c);
  const moved = mock.method(parent, "insertBefore");
  place(parent, [a, c, d]);
  assert.deepEqual([...parent.children], [a, c, d]);
  assert.equal(moved.mock.callCount(), 1);
});

test("a notice goes by itself, and waits while a hand is on it", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const toast = new Toast(document.body);
  const undo = mock.fn();
  toast.show("Deleted", "Undo", undo);
  mock.timers.tick(11_000);
  toast.element.dispatchEvent(new Event("pointerenter"));
  mock.timers.tick(60_000);
  assert.equal(toast.element.classList.contains("shown"), true);
  toast.button.click();
  assert.equal(undo.mock.callCount(), 1);
  assert.equal(toast.element.classList.contains("shown"), false);
  toast.show("Copied");
  assert.equal(toast.button.hidden, true);
  mock.timers.tick(2_500);
  assert.equal(toast.element.classList.contains("shown"), false);
});

test("what opens at a button stays within the window", () => {
  const element = { style: {}, getBoundingClientRect: () => ({ width: 200, height: 300 }) };
  const at = (box) => Object.assign(make("button"), { getBoundingClientRect: () => box });
  Object.defineProperty(document.documentElement, "clientWidth", { value: 1_000 });
  window.innerHeight = 800;
  placeAt(element, at({ top: 100, bottom: 120, left: 50, right: 90 }));
  assert.deepEqual(element.style, { top: "124px", left: "50px" });
  placeAt(element, at({ top: 700, bottom: 720, left: 950, right: 990 }));
  assert.deepEqual(element.style, { top: "396px", left: "792px" });
});

test("a message waits for what passes, and is held by what does not", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const obstacles = [];
  composer.hold(() => obstacles[0] ?? null);
  composer.setUpComposer();
  const sendings = mock.fn();
  addEventListener("sending", sendings);
  const press = () => {
    const event = new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true });
    composer.field().dispatchEvent(event);
    return !event.defaultPrevented;
  };
  assert.equal(press(), false, "an empty message goes nowhere");
  composer.write("Hello");
  obstacles[0] = { reason: "It is too long." };
  assert.equal(press(), false);
  const held = document.querySelector(".held");
  assert.equal(held.textContent, "It is too long.");
  const hurry = mock.fn();
  obstacles[0] = { reason: "Counting", waits: true, hurry };
  assert.equal(press(), false);
  assert.equal(hurry.mock.callCount(), 1);
  mock.timers.tick(300);
  assert.equal(held.textContent, "Counting");
  obstacles.length = 0;
  assert.equal(press(), true);
  assert.equal(sendings.mock.callCount(), 1);
  // What is typed over the words on their way is not lost with them.
  composer.write("Hello again");
  composer.answered(true, 0);
  composer.field().value = "";
  assert.equal(composer.empty(), true);
});

const bytes = (...values) => new File([new Uint8Array(values)], "a name");
const KINDS = [
  [bytes(0x89, 0x50, 0x4e, 0x47, 1), "image/png"],
  [bytes(0xff, 0xd8, 0xff, 0xe0), "image/jpeg"],
  [new File(["\0\0\0\x18ftypheic"], "a"), "image/heic"],
  [new File(["\0\0\0\x18ftypavif"], "a"), "image/avif"],
  [new File(["RIFF1234WEBPVP8"], "a"), "image/webp"],
];
for (const [file, type] of KINDS) {
  test(`${type} is told by its first bytes`, async () => {
    assert.equal((await checkFile(file, { bytes: 1_000 })).file.type, type);
  });
}

test("why a file cannot be taken", async () => {
  const why = async (file, limit = 1_000) => (await checkFile(file, { bytes: limit })).why;
  assert.equal(await why(new File([], "a.png")), "empty");
  assert.equal(await why(new File(["a text"], "a.png", { type: "image/png" })), "picture_not_an_image");
  assert.equal(await why(bytes(0x89, 0x50, 0x4e, 0x47), 3), "picture_too_large");
  assert.equal(
    await why({ size: 4, slice: () => ({ arrayBuffer: () => Promise.reject(new Error()) }) }),
    "picture_broken",
  );
});

test("a drag brings files, and folders only by name", () => {
  const [file, folder] = [new File(["x"], "a.png"), new File([""], "folder")];
  const item = (isDirectory, name) => ({ kind: "file", webkitGetAsEntry: () => ({ isDirectory, name }) });
  const data = { items: [item(false, "a.png"), { kind: "string" }, item(true, "folder")], files: [file, folder] };
  assert.deepEqual(brought(data), { files: [file], folders: ["folder"] });
});

test("the parts of a memory plan that take nothing are left out", () => {
  const plan = { weights: 10, kv_bytes: 5, working: 0, margin: 1, visitors: 2, usual: 4_000, shares: [{ layers: 40 }] };
  const [heading, bar, list] = memoryPlan({ plan, context_length: 8_000 });
  assert.equal(heading.textContent, t("memory_heading"));
  assert.deepEqual(
    [...bar.children].map((each) => each.dataset.part),
    ["weights", "kv_bytes", "margin"],
  );
  assert.equal(list.children.length, 3);
  assert.deepEqual(memoryPlan({ plan: null }), []);
});
