// The arrows between a message and its alternatives, if there are any.

import { make } from "./dom.js";
import { t } from "./i18n.js";

/** @import { Branch, Way } from "./types.js" */

export class BranchView {
  /**
   * `choose(message, way)` is called with the requested alternative.
   * @param {(message: number, way: Way) => void} choose
   */
  constructor(choose) {
    /** @type {(way: Way, sign: string, key: string) => HTMLButtonElement} */
    const arrow = (way, sign, key) => {
      const button = make("button", { type: "button", class: "quiet", "aria-label": t(key) }, sign);
      button.addEventListener("click", () => choose(/** @type {number} */ (this.branch[way]), way));
      return button;
    };
    /** @type {Branch} */
    this.branch = { number: 1, count: 1, previous: null, next: null };
    this.previous = arrow("previous", "‹", "turn_branch_previous");
    this.next = arrow("next", "›", "turn_branch_next");
    this.count = make("span", { class: "branch-count" });
    this.element = make("span", { class: "branch", role: "group", hidden: true }, this.previous, this.count, this.next);
  }

  /** @param {Branch} branch */
  show(branch) {
    this.branch = branch;
    this.element.hidden = branch.count < 2;
    this.element.setAttribute("aria-label", t("turn_branch_label", branch));
    this.count.textContent = t("turn_branch", branch);
    this.previous.disabled = branch.previous === null;
    this.next.disabled = branch.next === null;
  }

  /**
   * After a click on an arrow, focus the same one of the new message, or the other one at the end.
   * @param {Way} way
   */
  focus(way) {
    const wanted = this[way].disabled ? (way === "next" ? this.previous : this.next) : this[way];
    wanted.focus({ preventScroll: true });
  }
}
