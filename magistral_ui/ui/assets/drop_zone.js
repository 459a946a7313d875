// Makes the whole window a drop zone for files, and highlights it during a drag; it does not read the files.

import { within } from "./composer.js";
import { make } from "./dom.js";
import { t } from "./i18n.js";

const DRAG_END_MS = 1_000; // without a drag event, of which there are many a second, after which the drag has ended elsewhere
const TEXT_FIELDS = "textarea, input, [contenteditable]"; // which accept dropped text natively

export class DropZone {
  /**
   * `reason()` returns why nothing can be dropped now, or null; `take(data)` is called with what was dropped.
   * @param {() => string | null} reason
   * @param {(data: DataTransfer) => void} take
   */
  constructor(reason, take) {
    this.reason = reason;
    this.take = take;
    /** @type {string | null} */
    this.why = null;
    this.inside = false; // whether the drag began in this page
    this.text = make("p", {});
    this.element = make(
      "div",
      { class: "drop-zone", hidden: true, "aria-hidden": "true" },
      make("div", {}, make("span", { class: "drop-picture" }), this.text),
    );
    document.body.append(this.element);
    /** @type {(name: string, act: (event: DragEvent) => void) => void} */
    const on = (name, act) => addEventListener(name, /** @type {EventListener} */ (act), { capture: true });
    on("dragstart", () => (this.inside = true));
    on("dragend", () => (this.inside = false));
    on("dragenter", (event) => this.over(event));
    on("dragover", (event) => this.over(event));
    on("dragleave", (event) => event.relatedTarget || this.hide());
    on("drop", (event) => this.drop(event));
    addEventListener("blur", () => this.hide());
  }

  /**
   * What is over the page: files, text for a field that accepts it natively, or anything else.
   * @param {DragEvent} event
   */
  kind(event) {
    const { dataTransfer: data } = event;
    if (within(event, TEXT_FIELDS) && (this.inside || !data?.types.includes("Files"))) return "words";
    return this.inside ? "piece" : data?.types.includes("Files") ? "files" : "else";
  }

  /** @param {DragEvent} event */
  over(event) {
    event.stopPropagation(); // Gradio would not accept text in its field, and show its own drop zone
    const kind = this.kind(event);
    if (kind === "words" || kind === "piece") return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = "copy"; // even if it will be refused: the drop shows the reason
    if (kind === "files") this.show(this.reason());
  }

  /** @param {DragEvent} event */
  drop(event) {
    this.hide();
    event.stopPropagation();
    const kind = this.kind(event);
    if (kind === "words") return;
    event.preventDefault(); // the browser must not open the file in place of the page
    if (kind !== "piece" && event.dataTransfer) this.take(event.dataTransfer);
  }

  /** @param {string | null} why */
  show(why) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.hide(), DRAG_END_MS);
    if (!this.element.hidden && this.why === why) return;
    this.why = why;
    this.element.classList.toggle("shut", why !== null);
    this.text.textContent = why ?? t("drop_here");
    this.element.hidden = false;
  }

  hide() {
    clearTimeout(this.timer);
    this.element.hidden = true;
  }
}
