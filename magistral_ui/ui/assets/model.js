// Shows how far the model is loaded, what runs here, and why: in the panel, in the top bar, and above the composer.

import { make } from "./dom.js";
import { bytes, duration, has, sentence, short, t } from "./strings.js";

export class ModelView {
  constructor(element, act) {
    this.element = element;
    this.act = act;
    this.banner = document.getElementById("model-banner");
    this.name = document.getElementById("model-name");
  }

  /** `{state: "loading" | "ready" | "broken", card, demo, …}`, see ui/model_panel.py. */
  show(value) {
    if (!value) return;
    const before = document.body.dataset.model;
    document.body.dataset.model = value.state;
    this.box = document.querySelector("#box textarea");
    if (this.box) this.box.placeholder = this.placeholder(value);
    if (value.state === "ready" && before !== "ready") this.act("ready");
    this.name?.replaceChildren(
      ...[value.card, value.demo && value.card !== t("model_demo_badge") ? t("model_demo_badge") : null].filter(Boolean).map((text, index) =>
        make("span", { class: index || value.demo ? "badge" : "name" }, text),
      ),
    );
    this.banner?.replaceChildren(...this.bannerFor(value));
    this.element.replaceChildren(...this.panelFor(value));
  }

  /** The composer says why nothing can be sent. */
  placeholder({ state, vision }) {
    if (state !== "ready") return t(`page_placeholder_${state}`);
    // Nobody drops a picture with a finger, and the longer text would not fit there.
    return t(vision && matchMedia("(hover: hover)").matches ? "page_placeholder_vision" : "page_placeholder");
  }

  bannerFor(value) {
    if (value.state === "loading") return [this.progress(value)];
    if (value.state !== "broken") return [];
    const retry = make("button", { type: "button", class: "retry" }, t("loading_retry"));
    retry.addEventListener("click", () => {
      retry.disabled = true;
      this.act("retry");
    });
    const told = make("div", {}, make("strong", {}, t("broken_heading")), make("p", {}, sentence(value)));
    return [make("div", { class: "broken", role: "alert" }, told, retry)];
  }

  progress({ stage, done, total, seconds_left: left }) {
    const facts = [t(`loading_${stage}`)];
    if (total) facts.push(t("loading_bytes", { done: bytes(done), total: bytes(total) }));
    if (left !== null && left !== undefined) facts.push(t("loading_left", { time: duration(left) }));
    const bar = make("progress", { "aria-label": t("loading_heading") });
    if (total) Object.assign(bar, { max: total, value: done });
    return make("div", { class: "loading" }, make("strong", {}, t("loading_heading")), make("span", {}, facts.join(" · ")), bar);
  }

  panelFor({ state, card, info, description, command }) {
    const rows = [["model_name", info?.name ?? card]];
    if (info) {
      rows.push(["model_source", info.source]);
      if (info.parameters) rows.push(["model_size", t("model_parameters", { count: short(info.parameters) })]);
      rows.push(["model_precision", info.precision], ["model_device", info.device]);
      rows.push(["model_context", t("turn_tokens", { count: info.context_length })]);
      if (info.revision) rows.push(["model_revision", info.revision]);
    }
    const list = make("dl", {});
    for (const [key, value] of rows) list.append(make("dt", {}, t(key)), make("dd", {}, value));
    const told = [make("p", {}, t(description))];
    if (state === "ready" && has(info.chosen_because)) told.push(make("p", {}, t(info.chosen_because)));
    told.push(make("p", {}, t("model_how_to_choose")), make("pre", { tabIndex: 0 }, make("code", { dir: "ltr" }, command)));
    return [list, ...told];
  }
}
