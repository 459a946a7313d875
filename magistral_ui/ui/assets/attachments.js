// Accepts images that are dropped, pasted or chosen, and lists those that cannot be accepted, with the reason.

import { above, attached, field, hold, look, within } from "./composer.js";
import { make } from "./dom.js";
import { DropZone } from "./drop_zone.js";
import { brought, checkFile } from "./file_kinds.js";
import { t } from "./i18n.js";

/** @import { Act, AttachedValue, MessageLimits, Refused } from "./types.js" */

const ACCEPTED_TYPES = "image/*,.heic,.heif,.avif"; // what the file dialog offers first
const CHECK_TIMEOUT_MS = 10_000; // for which a message waits for the server to check its images
const RECENT_MS = 1_000; // for which an upload counts as recent after its end

/** What the page knows about the model: whether it sees images, and why it is unavailable, if it is. */
/** @type {{ vision: boolean, away: string | null }} */
let model = { vision: true, away: t("page_placeholder_loading") };
/** @type {Attachments | null} */
let here = null;

/**
 * Update this when the model changes, or becomes available or unavailable: images may be refused now.
 * @param {{ vision: boolean, away: string | null }} now
 */
export function setModelSeesImages(now) {
  model = now;
  here?.lock();
}

/** Why no image can be accepted at all, or null. */
const reason = () => model.away ?? (model.vision ? null : t("pictures_not_seen"));

/** Whether files are being uploaded, or were a moment ago. */
export const uploads = () => Boolean(here && (here.uploading || performance.now() - here.ended < RECENT_MS));

/** @param {Element} thumbnail */
const source = (thumbnail) => thumbnail.querySelector("img")?.src ?? "";

export class Attachments {
  /**
   * `act("look", {number})` asks the server to check the attached images; `limits` are `{pictures, bytes}` of one message.
   * @param {Act} act
   * @param {MessageLimits} limits
   */
  constructor(act, limits) {
    this.act = act;
    this.limits = limits;
    this.before = 0; // how many images were there before the first batch
    this.begun = false; // whether Gradio has begun to upload it
    this.isSetByUs = false;
    here = this;
    /** @type {Refused[]} */
    this.refused = [];
    /** @type {File[][]} */
    this.batches = []; // files on their way into the composer: Gradio takes one batch at a time
    /** @type {Map<string, string>} */
    this.names = new Map(); // URL → the file's own name, which Gradio simplifies
    /** @type {Map<string, string>} */
    this.thumbnails = new Map(); // URL → a thumbnail of an image that a browser cannot show
    this.ended = -Infinity; // when the last batch arrived, or failed
    this.number = 0; // of the last check
    /** @type {{ number: number, sources: string[], since: number } | null} */
    this.checking = null; // the check that is running
    this.notice = above(make("div", { class: "refusals", role: "alert" }));
    new DropZone(reason, (data) => this.drop(data));
    addEventListener("paste", (event) => this.paste(event), { capture: true });
    addEventListener("change", (event) => this.pick(event), { capture: true });
    addEventListener("sending", () => this.clear());
    const all = { childList: true, subtree: true, attributes: true, attributeFilter: ["src", "disabled"] };
    const composer = /** @type {HTMLElement} */ (document.getElementById("composer"));
    new MutationObserver(() => this.follow()).observe(composer, all); // Gradio re-renders its content
    hold(() => (this.waits ? { reason: t("composer_waiting"), waits: true } : null));
    this.known = 0; // images that were there before are checked, too
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
    return this.batches.length > 0 || Boolean(this.box.querySelector(".loader"));
  }

  get waits() {
    return this.uploading || Boolean(this.checking && performance.now() - this.checking.since < CHECK_TIMEOUT_MS);
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
    // Text copied from a document or a table comes as an image too: the text is meant.
    if (composing && data.types.includes("text/html") && data.getData("text")) return;
    event.preventDefault();
    event.stopPropagation();
    this.take([...data.files]);
  }

  /** @param {Event} event */
  pick(event) {
    if (this.isSetByUs || !within(event, "#box input[type=file]")) return;
    event.stopPropagation();
    const { files } = /** @type {HTMLInputElement} */ (event.target);
    this.take([...(files ?? [])]);
  }

  /**
   * Accept the files that can be accepted, and list the others.
   * @param {File[]} files
   * @param {string[]} folders
   */
  async take(files, folders = []) {
    const all = reason();
    if (all !== null) return void this.say(all);
    this.refused = folders.map((name) => ({ name, why: "folder" }));
    const accepted = [];
    for (const file of files) {
      const room = this.limits.pictures - attached().length - this.batches.flat().length - accepted.length;
      /** @type {{ file?: File, why: string, limit?: number }} */
      const found = room > 0 ? await checkFile(file, this.limits) : { why: "too_many", limit: this.limits.pictures };
      if (found.file) accepted.push(found.file);
      else this.refused.push({ name: file.name, ...found });
    }
    this.show();
    if (!accepted.length) return undefined;
    this.batches.push(accepted);
    if (this.batches.length === 1) this.uploadNext();
    field()?.focus({ preventScroll: true });
    return undefined;
  }

  /** Give the first batch to Gradio, which uploads it. */
  uploadNext() {
    const { input } = this;
    if (!input) return;
    const data = new DataTransfer();
    for (const file of this.batches[0]) data.items.add(file);
    input.files = data.files;
    this.before = attached().length;
    this.begun = false;
    this.isSetByUs = true;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    this.isSetByUs = false;
  }

  /** Gradio has re-rendered the composer. */
  follow() {
    this.lock();
    const shown = attached();
    const loading = Boolean(this.box.querySelector(".loader"));
    this.begun ||= loading;
    if (this.batches.length && !loading && (this.begun || shown.length > this.before)) {
      const batch = this.batches.shift() ?? [];
      for (const [index, thumbnail] of shown.slice(this.before).entries()) {
        if (batch[index]) this.names.set(source(thumbnail), batch[index].name);
      }
      this.ended = performance.now();
      if (this.batches.length) this.uploadNext();
    }
    for (const thumbnail of shown) {
      const small = this.thumbnails.get(source(thumbnail));
      const image = thumbnail.querySelector("img");
      if (small && image) image.src = small;
    }
    const more = shown.length > this.known;
    this.known = shown.length;
    if (more) this.check();
    look();
  }

  check() {
    this.number += 1;
    this.checking = { number: this.number, sources: attached().map(source), since: performance.now() };
    this.act("look", { number: this.number });
    setTimeout(look, CHECK_TIMEOUT_MS);
  }

  /**
   * Show the server's answer: `{number, attached: [{failure, thumbnail}]}` in the order of the images.
   * @param {AttachedValue} value
   */
  answer({ number, attached: found }) {
    if (!this.checking || number !== this.checking.number) return;
    const { sources } = this.checking;
    this.checking = null;
    if (attached().length > sources.length) this.check(); // more were added meanwhile
    if (found.length !== sources.length) return;
    const bad = new Set();
    found.forEach(({ failure, thumbnail }, index) => {
      if (thumbnail) this.thumbnails.set(sources[index], thumbnail);
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
    // From the last to the first, because Gradio removes by index.
    for (const thumbnail of gone.reverse()) {
      /** @type {HTMLButtonElement | null} */
      const remove = thumbnail.querySelector(".delete-button");
      remove?.click();
    }
    this.show();
    field()?.focus({ preventScroll: true });
  }

  /** Disable the upload button if the model cannot see images. */
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
   * Show one message about all the files.
   * @param {string} content
   */
  say(content) {
    this.tell(make("p", {}, content));
  }

  /** List each file that was not accepted, by name, and why. */
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
