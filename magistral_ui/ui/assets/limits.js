// Shows the limits of a shared page before they matter, and lets the visitor sign out.

import { make } from "./dom.js";
import { t } from "./i18n.js";
import { signOut } from "./login.js";

/** @import { LimitsValue } from "./types.js" */

export class LimitsView {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
  }

  /**
   * `{keys, values, login}`, see ui/panels.py.
   * @param {LimitsValue | undefined} value
   */
  show(value) {
    if (!value) return;
    const reasons = value.keys.map((key) => make("li", {}, t(key, value.values)));
    const leave = make(
      "form",
      { method: "post", action: "logout" },
      make("button", { class: "quiet" }, t("login_leave")),
    );
    leave.addEventListener("submit", (event) => {
      event.preventDefault();
      signOut().catch(() => leave.submit()); // the browser then shows why it failed
    });
    this.element.replaceChildren(
      ...(reasons.length ? [make("ul", { class: "limits" }, ...reasons)] : []),
      ...(value.login ? [leave] : []),
    );
  }
}
