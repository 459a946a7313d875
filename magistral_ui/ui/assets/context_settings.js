// What of the conversation the model reads again: earlier reasoning in or out, and how large new pictures are sent.

import { lack, make } from "./dom.js";
import { t } from "./i18n.js";
import { change, facts, measured, settings } from "./settings.js";

/** @import { MeterValue } from "./types.js" */

export class ContextSettings {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.keep = make("input", {
      type: "checkbox",
      id: "keep-reasoning",
      "aria-describedby": "keep-reasoning-help keep-reasoning-advised keep-reasoning-tokens",
    });
    this.keep.addEventListener("change", () => change({ keep_reasoning: this.keep.checked }));
    this.advice = make("p", { class: "help", id: "keep-reasoning-advised", hidden: true }, t("keep_reasoning_advised"));
    this.tokens = make("p", { class: "help", id: "keep-reasoning-tokens" });
    this.sizes = make("select", { id: "picture-side" });
    this.sizes.addEventListener("change", () => change({ picture_side: Number(this.sizes.value) || null }));
    this.pictures = make(
      "div",
      { class: "choice" },
      make("div", { class: "row" }, make("label", { htmlFor: "picture-side" }, t("picture_side_label")), this.sizes),
      make("p", { class: "help" }, t("picture_side_help")),
    );
    this.reasoning = make(
      "div",
      { class: "choice" },
      make("label", { class: "check" }, this.keep, t("keep_reasoning_label")),
      make("p", { class: "help", id: "keep-reasoning-help" }, t("keep_reasoning_help")),
      this.advice,
      this.tokens,
    );
    element.replaceChildren(this.reasoning, this.pictures);
    facts.follow(({ picture_sides: sides, missing, keeps_reasoning: isAdvised }) => {
      this.advice.hidden = !isAdvised;
      if (missing.keep_reasoning && !this.keep.disabled) lack(this.reasoning, t(missing.keep_reasoning));
      const choices = [
        ["0", t("picture_side_full")],
        ...sides.map((side) => [String(side), t("picture_side_pixels", { count: side })]),
      ];
      this.sizes.replaceChildren(...choices.map(([value, text]) => make("option", { value }, text)));
      this.pictures.hidden = !sides.length;
      this.refresh();
    });
    settings.follow(() => this.refresh());
    measured.follow((value) => this.weigh(value));
  }

  refresh() {
    this.keep.checked = settings.value.keep_reasoning;
    this.sizes.value = String(settings.value.picture_side ?? 0);
  }

  /**
   * Show how many tokens the choice concerns, if there are any.
   * @param {MeterValue} value
   */
  weigh({ use }) {
    const [kept, out] = [use?.reasoning ?? 0, use?.left_out ?? 0];
    const told = [
      kept ? t("keep_reasoning_in", { count: kept }) : null,
      out ? t("keep_reasoning_out", { count: out }) : null,
    ];
    this.tokens.textContent = told.filter(Boolean).join(" ");
    this.tokens.hidden = !this.tokens.textContent;
  }
}
