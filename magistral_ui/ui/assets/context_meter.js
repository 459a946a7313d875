// How much of the context is used, what for, and whether the message being written fits: asked for at every pause of the writer.

import { attached, empty, field, hold, look } from "./composer.js";
import { make } from "./dom.js";
import { number, sentence, t } from "./i18n.js";
import { change, measured, settings } from "./settings.js";

/** @import { Act, MeterValue, Obstacle, Remedy, Use } from "./types.js" */

const DEBOUNCE_MS = 300; // milliseconds without a key until the server is asked
const COUNT_TIMEOUT_MS = 10_000; // ms for which a message waits for its count; then the engine says whether it fits
const TEMPLATE_TOKENS = 64; // tokens that the template puts around a message, and more
const KINDS = ["system", "conversation", "reasoning", "pictures", "message"];

export class ContextMeter {
  /**
   * `act("weigh")` asks the server what the composer's content would cost.
   * @param {HTMLElement} element
   * @param {Act} act
   */
  constructor(element, act) {
    this.act = act;
    this.bar = make(
      "span",
      { class: "meter-bar", "aria-hidden": "true" },
      ...KINDS.map((kind) => make("i", { class: `use-${kind}` })),
    );
    this.count = make("span", { class: "meter-count" });
    this.rows = make("div", { class: "breakdown" });
    this.details = make(
      "details",
      { class: "meter", hidden: true },
      make("summary", { title: t("meter_help") }, this.bar, this.count),
      this.rows,
    );
    this.speaker = make("div", { class: "visually-hidden", role: "status" });
    element.replaceChildren(this.details, this.speaker);
    this.fold();
    settings.follow(() => this.ask());
    /** @type {MeterValue | null} */
    this.base = null; // the last count that holds for the conversation as it stands
    this.state = ""; // what was announced last
    this.drawnFit = "";
    this.changed = 0; // when the message last changed
    hold(() => this.obstacle());
    this.listen();
  }

  /** Follow what is written and attached: Gradio re-renders the composer, so the listeners are on its container. */
  listen() {
    const composer = document.getElementById("composer");
    if (!composer) return void requestAnimationFrame(() => this.listen());
    this.fit = make("div", { class: "fit", hidden: true });
    document.getElementById("model-banner")?.after(this.fit);
    composer.addEventListener("input", () => this.follow());
    let before = attached().length;
    new MutationObserver(() => {
      const now = attached().length;
      if (now === before) return;
      before = now;
      this.follow();
    }).observe(composer, { childList: true, subtree: true });
  }

  /** The message is another one. */
  follow() {
    this.changed = performance.now();
    const value = measured.value;
    if (empty()) this.clearStale();
    // Gradio does not report a value that equals the last one, so what is known of this message is shown at once.
    else if (value?.limit && this.isOf(value)) this.showFit(value);
    this.ask(empty() ? 0 : DEBOUNCE_MS);
    look();
  }

  /** The conversation is another one, or there is more of it. */
  renew() {
    this.base = null;
    requestAnimationFrame(() => this.clearStale()); // Gradio empties the composer right after this event
    this.ask();
  }

  /** What was said of a message is not true of an empty box. */
  clearStale() {
    const { fit, failure } = measured.value ?? {};
    if (empty() && (fit === "too_long" || failure)) this.showFit({ fit: "fits" });
  }

  /**
   * What keeps the message from being sent, see composer.js.
   * @returns {Obstacle | null}
   */
  obstacle() {
    const value = measured.value;
    if (!value || empty() || (!value.limit && !value.failure)) return null;
    if (this.isOf(value)) return this.refusal(value);
    if (this.surely(value.of[1])) return null;
    if (performance.now() - this.changed > COUNT_TIMEOUT_MS) return null;
    const hurry = () => {
      this.ask(0);
      setTimeout(look, COUNT_TIMEOUT_MS);
    };
    return { reason: t("composer_waiting"), waits: true, hurry };
  }

  /**
   * Whether `value` counts a message like the one in the composer.
   * @param {MeterValue} value
   */
  isOf({ of: [characters, pictures] }) {
    return characters === field()?.value.length && pictures === attached().length;
  }

  /** @param {MeterValue} value */
  refusal({ fit, failure, ...value }) {
    const reason = failure ? sentence(failure) : fit === "too_long" ? t("fit_too_long", value) : null;
    return reason ? { reason } : null;
  }

  /**
   * Whether the message fits however it is counted: no token is shorter than a byte.
   * @param {number} pictures
   */
  surely(pictures) {
    if (!this.base || attached().length > pictures) return false;
    const { limit, total, use } = this.base;
    const tokens = /** @type {number[]} */ (use.message_pictures);
    const seen = attached().length ? tokens.reduce((sum, each) => sum + each, 0) : 0;
    const bytes = new TextEncoder().encode(field()?.value).length;
    return total - use.message + seen + bytes + TEMPLATE_TOKENS < (limit ?? 0);
  }

  /** The breakdown lies over the page: Escape and a click beside it close it. */
  fold() {
    this.details.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.details.open) return;
      this.details.open = false;
      this.details.querySelector("summary")?.focus();
    });
    addEventListener("pointerdown", (event) => {
      if (this.details.open && !this.details.contains(/** @type {Node} */ (event.target))) this.details.open = false;
    });
  }

  /**
   * Ask once the writer pauses.
   * @param {number} pause
   */
  ask(pause = DEBOUNCE_MS) {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.act("weigh"), pause);
  }

  /**
   * `{limit, total, room, use, fit, remedies, failure, of}`, see ui/context_meter.py.
   * @param {MeterValue | undefined} value
   */
  show(value) {
    if (!value || !("limit" in value)) return;
    measured.set(value);
    if (value.limit) this.base = value;
    document.body.dataset.fit = value.fit ?? "";
    if (value.limit) this.showUse(value);
    this.details.hidden = !value.limit && !value.failure;
    this.showFit(value);
    if (value.failure?.key === "too_many_new_pictures") this.ask(1000 * value.failure.values?.seconds);
    look();
  }

  /** @param {MeterValue} value */
  showUse({ limit, total, room, use, fit }) {
    KINDS.forEach((kind, index) => {
      const piece = /** @type {HTMLElement} */ (this.bar.children[index]);
      piece.style.inlineSize = `${Math.min(100, (100 * use[kind]) / Math.max(limit ?? 0, total))}%`;
    });
    this.details.dataset.fit = fit;
    this.count.textContent = t(use.estimated ? "meter_about" : "meter_count", { total, limit });
    /** @type {[string, string, string, string][]} */
    const rows = KINDS.filter((kind) => use[kind]).map((kind) => [
      kind,
      t(`meter_${kind}`),
      number(use[kind]),
      this.each(kind, use),
    ]);
    const list = make("dl", {});
    for (const [kind, label, count, more] of rows) {
      list.append(
        make("dt", {}, make("i", { class: `use-${kind}` }), label),
        make("dd", {}, count, more ? make("small", {}, more) : null),
      );
    }
    list.append(
      make("dt", { class: "use-room" }, make("i", {}), t("meter_room")),
      make("dd", { class: "use-room" }, number(room)),
    );
    const out = use.left_out ? make("p", {}, t("meter_left_out", { count: use.left_out })) : null;
    this.rows.replaceChildren(make("strong", {}, t("meter_heading")), list, ...(out ? [out] : []));
  }

  /**
   * What each picture of the message costs.
   * @param {string} kind
   * @param {Use} use
   */
  each(kind, { message_pictures: pictures }) {
    if (kind !== "message" || !pictures.length) return "";
    return t("meter_message_pictures", { count: pictures.length, tokens: pictures.map(number).join(" + ") });
  }

  /**
   * Whether the message fits, and what can be done where it does not.
   * @param {Partial<MeterValue>} value
   */
  showFit({ fit = "", total, limit, room, remedies = [], failure }) {
    if (!this.fit) return;
    /** @type {Record<string, () => string>} */
    const texts = {
      too_long: () => t("fit_too_long", { total, limit }),
      full: () => t("fit_full", { total, limit }),
      tight: () => t("fit_tight", { count: room }),
    };
    const text = failure ? sentence(failure) : (texts[fit]?.() ?? "");
    const state = failure ? failure.key : fit;
    // Said when it begins, not at every pause.
    if (state !== this.state) this.speaker.textContent = text;
    this.state = state;
    this.fit.hidden = !text;
    this.fit.dataset.fit = failure ? "refused" : fit;
    const drawn = JSON.stringify([text, remedies]);
    if (!text || drawn === this.drawnFit) return; // a button that has the focus keeps it
    this.drawnFit = drawn;
    const buttons = remedies.map((remedy) => {
      const key = remedy.key === "new_chat" && fit === "full" ? "page_new_chat" : `remedy_${remedy.key}`;
      const button = make("button", { type: "button" }, t(key, remedy));
      button.addEventListener("click", () => this.mend(remedy));
      return button;
    });
    const isAdvisedAgainst = remedies.some(({ advised_against: advised }) => advised);
    this.fit.replaceChildren(
      make("p", {}, text),
      ...(buttons.length ? [make("div", { class: "remedies" }, ...buttons)] : []),
      ...(isAdvisedAgainst ? [make("p", { class: "advice" }, t("keep_reasoning_advised"))] : []),
    );
  }

  /** @param {Remedy} remedy */
  mend({ key, side }) {
    if (key === "leave_reasoning_out") change({ keep_reasoning: false });
    if (key === "smaller_pictures") change({ picture_side: side });
    if (key === "new_chat") document.getElementById("new-chat")?.click();
    field()?.focus();
  }
}
