// Accepts images that are dropped or pasted anywhere, or picked, and names those that cannot be accepted, with the reason.

import { above, attached, field, hold, look, within } from "./composer.js";
import { make } from "./dom.js";
import { DropZone } from "./drop_zone.js";
import { brought, checkFile } from "./file_kinds.js";
import { t } from "./i18n.js";

/** @import { Act, AttachedValue, MessageLimits, Refused } from "./types.js" */

const ACCEPTED_TYPES = "image/*,.heic,.heif,.avif"; // what the file dialog offers first
const CHECK_TIMEOUT_MS = 10_000; // ms for which a message waits for the server to look at its pictures
const RECENT_MS = 1_000; // ms

/** What the page knows of the model: whether it sees images, and why it is unavailable. */
/** @type {{ vision: boolean, away: string | null }} */
let model = { vision: true, away: t("page_placeholder_loading") };
/** @type {Attachments | null} */
let here = null;

/**
 * The model is another one, or has come or gone: pictures may be of no use now.
 * @param {{ vision: boolean, away: string | null }} now
 */
export function setModelSeesImages(now) {
  model = now;
  here?.lock();
}

/** Why no picture can be taken at all; null where it can. */
const reason = () => model.away ?? (model.vision ? null : t("pictures_not_seen"));

/** Whether files are on their way to the server, or were a moment ago. */
export const uploads = () => Boolean(here && (here.uploading || performance.now() - here.ended < RECENT_MS));

/** @param {Element} thumbnail */
const source = (thumbnail) => thumbnail.querySelector("img")?.src ?? "";

export class Attachments {
  /**
   * `act("look", {number})` asks the server to look at what is attached; `limits` are `{pictures, bytes}` of one message.
   * @param {Act} act
   * @param {MessageLimits} limits
   */
  constructor(act, limits) {
    this.act = act;
    this.limits = limits;
    this.before = 0; // how many were there before the first lot
    this.begun = false; // whether Gradio has begun to upload it
    this.handing = false;
    here = this;
    /** @type {Refused[]} */
    this.refused = [];
    /** @type {File[][]} */
    this.lots = []; // files on their way into the composer: Gradio takes one lot at a time
    /** @type {Map<string, string>} */
    this.names = new Map(); // address → the file's own name, which Gradio simplifies
    /** @type {Map<string, string>} */
    this.small = new Map(); // address → a thumbnail of what a browser cannot show
    this.ended = -Infinity; // when the last lot had come, or failed
    this.number = 0; // of the last question
    /** @type {{ number: number, sources: string[], since: number } | null} */
    this.looking = null; // {number, sources, since}: the question that is open
    this.notice = above(make("div", { class: "refusals", role: "alert" }));
    new DropZone(reason, (data) => this.drop(data));
    addEventListener("paste", (event) => this.paste(event), { capture: true });
    addEventListener("change", (event) => this.pick(event), { capture: true });
    addEventListener("sending", () => this.clear());
    const all = { childList: true, subtree: true, attributes: true, attributeFilter: ["src", "disabled"] };
    const composer = /** @type {HTMLElement} */ (document.getElementById("composer"));
    new MutationObserver(() => this.follow()).observe(composer, all); // Gradio re-renders its content
    hold(() => (this.waits ? { reason: t("composer_waiting"), waits: true } : null));
    this.known = 0; // what was there before this, too, is looked at
    this.follow();
  }

  get box() {
    return /** @type {HTMLElement} */ (document.getElementById("box"));
  }

  /** @returns {HTMLInputElement | null} */
  get input() {
    return this.box.querySelector("input[type=file]");
  }

  get uploading() {
    return this.lots.length > 0 || Boolean(this.box.querySelector(".loader"));
  }

  get waits() {
    return this.uploading || Boolean(this.looking && performance.now() - this.looking.since < CHECK_TIMEOUT_MS);
  }

  /** @param {DataTransfer} data */
  drop(data) {
    const { files, folders } = brought(data);
    if (files.length || folders.length) this.take(files, folders);
    else this.say(t("upload_wrong_type"));
  }

  /** @param {ClipboardEvent} event */
  paste(event) {
    const { clipboardData: data } = event;
    const composing = within(event, "#box textarea");
    if (!data?.files.length || (!composing && within(event, "input, textarea, [contenteditable]"))) return;
    // What is copied out of a text or a table comes as a picture too: there the words are meant.
    if (composing && data.types.includes("text/html") && data.getData("text")) return;
    event.preventDefault();
    event.stopPropagation();
    this.take([...data.files]);
  }

  /** @param {Event} event */
  pick(event) {
    if (this.handing || !within(event, "#box input[type=file]")) return;
    event.stopPropagation();
    const { files } = /** @type {HTMLInputElement} */ (event.target);
    this.take([...(files ?? [])]);
  }

  /**
   * Take what can be taken, and say what cannot.
   * @param {File[]} files
   * @param {string[]} folders
   */
  async take(files, folders = []) {
    const all = reason();
    if (all !== null) return void this.say(all);
    this.refused = folders.map((name) => ({ name, why: "folder" }));
    const sound = [];
    for (const file of files) {
      const room = this.limits.pictures - attached().length - this.lots.flat().length - sound.length;
      /** @type {{ file?: File, why: string, limit?: number }} */
      const found = room > 0 ? await checkFile(file, this.limits) : { why: "too_many", limit: this.limits.pictures };
      if (found.file) sound.push(found.file);
      else this.refused.push({ name: file.name, ...found });
    }
    this.show();
    if (!sound.length) return undefined;
    this.lots.push(sound);
    if (this.lots.length === 1) this.hand();
    field()?.focus({ preventScroll: true });
    return undefined;
  }

  /** Give the first lot to Gradio, which uploads it. */
  hand() {
    const { input } = this;
    if (!input) return;
    const data = new DataTransfer();
    for (const file of this.lots[0]) data.items.add(file);
    input.files = data.files;
    this.before = attached().length;
    this.begun = false;
    this.handing = true;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    this.handing = false;
  }

  /** Gradio has re-rendered the composer. */
  follow() {
    this.lock();
    const shown = attached();
    const loading = Boolean(this.box.querySelector(".loader"));
    this.begun ||= loading;
    if (this.lots.length && !loading && (this.begun || shown.length > this.before)) {
      const lot = this.lots.shift() ?? [];
      for (const [index, thumbnail] of shown.slice(this.before).entries()) {
        if (lot[index]) this.names.set(source(thumbnail), lot[index].name);
      }
      this.ended = performance.now();
      if (this.lots.length) this.hand();
    }
    for (const thumbnail of shown) {
      const small = this.small.get(source(thumbnail));
      const image = thumbnail.querySelector("img");
      if (small && image) image.src = small;
    }
    const more = shown.length > this.known;
    this.known = shown.length;
    if (more) this.ask();
    look();
  }

  ask() {
    this.number += 1;
    this.looking = { number: this.number, sources: attached().map(source), since: performance.now() };
    this.act("look", { number: this.number });
    setTimeout(look, CHECK_TIMEOUT_MS);
  }

  /**
   * The server's answer: `{number, attached: [{failure, thumbnail}]}` in their order.
   * @param {AttachedValue} value
   */
  answer({ number, attached: found }) {
    if (!this.looking || number !== this.looking.number) return;
    const { sources } = this.looking;
    this.looking = null;
    if (attached().length > sources.length) this.ask(); // more came meanwhile
    if (found.length !== sources.length) return;
    const bad = new Set();
    found.forEach(({ failure, thumbnail }, index) => {
      if (thumbnail) this.small.set(sources[index], thumbnail);
      if (!failure) return;
      bad.add(sources[index]);
      this.refused.push({
        ...failure.values,
        name: this.names.get(sources[index]) ?? failure.values?.name,
        why: failure.key,
      });
    });
    const gone = attached().filter((thumbnail) => bad.has(source(thumbnail)));
    this.follow();
    if (!gone.length) return;
    // From the last to the first: Gradio removes by place.
    for (const thumbnail of gone.reverse()) {
      /** @type {HTMLButtonElement | null} */
      const remove = thumbnail.querySelector(".delete-button");
      remove?.click();
    }
    this.show();
    field()?.focus({ preventScroll: true });
  }

  /** The clip cannot be used where the model sees nothing. */
  lock() {
    const { input } = this;
    if (input && input.accept !== ACCEPTED_TYPES) input.accept = ACCEPTED_TYPES;
    /** @type {NodeListOf<HTMLButtonElement>} */
    const buttons = this.box.querySelectorAll(".upload-button");
    for (const button of buttons) {
      const why = model.away === null && !model.vision ? t("pictures_not_seen") : null;
      if (why && !button.disabled) button.disabled = true;
      else if (!why && button.dataset.why && model.away === null) button.disabled = false;
      if ((why ?? "") === (button.dataset.why ?? "")) continue;
      button.title = why ?? t("composer_add");
      if (why) button.dataset.why = why;
      else delete button.dataset.why;
    }
  }

  clear() {
    this.refused = [];
    this.notice.replaceChildren();
  }

  /**
   * One sentence for all that was brought.
   * @param {string} content
   */
  say(content) {
    this.tell(make("p", {}, content));
  }

  /** Each file that was not taken, by name, and why. */
  show() {
    if (!this.refused.length) return this.clear();
    const reasons = this.refused.map(({ name, why, limit }) => {
      const content = t(why === "picture_not_supported" ? "pictures_not_seen" : `refused_${why}`, { limit });
      return make("li", {}, make("bdi", {}, name), " — ", content);
    });
    const heading = make("p", {}, t("refused_heading", { count: reasons.length }));
    return this.tell(heading, make("ul", {}, ...reasons), make("p", {}, t("refused_hint")));
  }

  /** @param {HTMLElement[]} content */
  tell(...content) {
    const dismiss = make("button", { type: "button", class: "quiet" }, t("turn_dismiss"));
    dismiss.addEventListener("click", () => {
      this.clear();
      field()?.focus({ preventScroll: true });
    });
    this.notice.replaceChildren(make("div", {}, ...content), dismiss);
  }
}
