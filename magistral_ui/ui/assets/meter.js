// How much of the context is used, what for, and whether the message being written fits: asked for at every pause of the writer.

import { make } from "./dom.js";
import { change, settings, weighed } from "./settings.js";
import { number, sentence, t } from "./strings.js";

const PAUSE = 300; // milliseconds without a key until the server is asked
const KINDS = ["system", "conversation", "reasoning", "pictures", "message"];

export class MeterView {
  /** `act("weigh")` asks the server what the composer's content would cost. */
  constructor(element, act) {
    this.act = act;
    this.bar = make("span", { class: "meter-bar", "aria-hidden": "true" }, ...KINDS.map((kind) => make("i", { class: `use-${kind}` })));
    this.count = make("span", { class: "meter-count" });
    this.rows = make("div", { class: "breakdown" });
    this.details = make("details", { class: "meter", hidden: true }, make("summary", { title: t("meter_help") }, this.bar, this.count), this.rows);
    this.speaker = make("div", { class: "visually-hidden", role: "status" });
    element.replaceChildren(this.details, this.speaker);
    this.fold();
    settings.follow(() => this.ask());
    this.listen();
  }

  /** Follow what is written and attached: Gradio draws the composer anew, so its surroundings are listened to. */
  listen() {
    const composer = document.getElementById("composer");
    if (!composer) return void requestAnimationFrame(() => this.listen());
    this.fit = make("div", { class: "fit", hidden: true });
    document.getElementById("model-banner").after(this.fit);
    composer.addEventListener("input", () => this.ask());
    const attached = () => composer.querySelectorAll("#box .thumbnail-item, #box .thumbnail-image").length;
    let before = attached();
    new MutationObserver(() => {
      if (before !== (before = attached())) this.ask();
    }).observe(composer, { childList: true, subtree: true });
  }

  /** The breakdown lies over the page: Escape and a click beside it close it. */
  fold() {
    this.details.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.details.open) return;
      this.details.open = false;
      this.details.querySelector("summary").focus();
    });
    addEventListener("pointerdown", (event) => {
      if (this.details.open && !this.details.contains(event.target)) this.details.open = false;
    });
  }

  /** Ask once the writer pauses. */
  ask() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.act("weigh"), PAUSE);
  }

  /** `{limit, total, room, use, fit, remedies, failure}`, see ui/context_meter.py. */
  show(value) {
    if (!value || !("limit" in value)) return;
    weighed.set(value);
    if (value.limit) this.showUse(value);
    this.details.hidden = !value.limit && !value.failure;
    this.showFit(value);
  }

  showUse({ limit, total, room, use, fit }) {
    KINDS.forEach((kind, index) => {
      this.bar.children[index].style.inlineSize = `${Math.min(100, (100 * use[kind]) / Math.max(limit, total))}%`;
    });
    this.details.dataset.fit = fit;
    this.count.textContent = t(use.estimated ? "meter_about" : "meter_count", { total, limit });
    const rows = KINDS.filter((kind) => use[kind]).map((kind) => [kind, t(`meter_${kind}`), number(use[kind]), this.each(kind, use)]);
    const list = make("dl", {});
    for (const [kind, label, count, more] of rows) {
      list.append(make("dt", {}, make("i", { class: `use-${kind}` }), label), make("dd", {}, count, more ? make("small", {}, more) : null));
    }
    list.append(make("dt", { class: "use-room" }, make("i", {}), t("meter_room")), make("dd", { class: "use-room" }, number(room)));
    const out = use.left_out ? make("p", {}, t("meter_left_out", { count: use.left_out })) : null;
    this.rows.replaceChildren(...[make("strong", {}, t("meter_heading")), list, out].filter(Boolean));
  }

  /** What each picture of the message costs. */
  each(kind, { message_pictures: pictures }) {
    if (kind !== "message" || !pictures.length) return "";
    return t("meter_message_pictures", { count: pictures.length, tokens: pictures.map(number).join(" + ") });
  }

  /** Whether the message fits, and what can be done where it does not. */
  showFit({ fit, total, limit, room, remedies = [], failure }) {
    if (!this.fit) return;
    const told = failure ? sentence(failure) : fit === "too_long" ? t("fit_too_long", { total, limit }) : fit === "tight" ? t("fit_tight", { count: room }) : "";
    const state = failure ? failure.key : fit;
    // Said when it begins, not at every pause.
    if (state !== this.state) this.speaker.textContent = told;
    this.state = state;
    this.fit.hidden = !told;
    this.fit.dataset.fit = failure ? "refused" : fit;
    if (!told) return;
    const buttons = remedies.map((remedy) => {
      const button = make("button", { type: "button" }, t(`remedy_${remedy.key}`, remedy));
      button.addEventListener("click", () => this.mend(remedy));
      return button;
    });
    this.fit.replaceChildren(make("p", {}, told), ...(buttons.length ? [make("div", { class: "remedies" }, ...buttons)] : []));
  }

  mend({ key, side }) {
    if (key === "leave_reasoning_out") change({ keep_reasoning: false });
    if (key === "smaller_pictures") change({ picture_side: side });
    if (key === "new_chat") document.getElementById("new-chat")?.click();
    document.querySelector("#box textarea")?.focus();
  }
}
