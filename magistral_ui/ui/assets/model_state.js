// Follows the state of the model, and shows it in the panel, in the top bar and above the composer.

import { setModelSeesImages } from "./attachments.js";
import { field } from "./composer.js";
import { make } from "./dom.js";
import { showInDrawer } from "./drawer.js";
import { bytes, duration, t } from "./i18n.js";
import { loginExpired } from "./login.js";
import { modelPanel, notices, onServer, withCommand } from "./model_panel.js";
import { showUnsupported } from "./unsupported.js";

/** @import { Act, ModelValue } from "./types.js" */

const LOADING_POLL_MS = 500; // between two requests while a model is loading
const POLL_MS = 5_000; // between two checks whether the server that runs the model has changed

/**
 * Whether a message can be sent in this state: the next one loads an unloaded model.
 * @param {string | undefined} state
 */
const canAnswer = (state) => state === "ready" || state === "unloaded";

export class ModelState {
  /**
   * @param {HTMLElement} element
   * @param {Act} act
   */
  constructor(element, act) {
    this.element = element;
    this.act = act;
    setInterval(() => this.look(), POLL_MS);
    addEventListener("visibilitychange", () => this.look());
    /** @type {string | undefined} */
    this.mark = undefined; // identifies the state of a server
    this.drawnBanner = "";
    this.drawnPanel = "";
    this.banner = document.getElementById("model-banner");
    this.name = document.getElementById("model-name");
  }

  /**
   * `{state: "loading" | "ready" | "unloaded" | "broken", card, demo, …}`, see ui/panels.py.
   * @param {ModelValue | undefined} value
   */
  show(value) {
    if (!value) return;
    const before = document.body.dataset.model;
    const another = this.mark !== undefined && value.mark !== this.mark; // a server may change without having been unreachable
    this.mark = value.mark;
    document.body.dataset.model = value.state;
    setModelSeesImages({
      vision: value.vision,
      away: canAnswer(value.state) ? null : this.placeholder(value),
    });
    const box = field();
    if (box) box.placeholder = this.placeholder(value);
    if (canAnswer(value.state) && (!canAnswer(before) || another)) this.act("ready"); // the composer may have been disabled
    // The demo model's name is in the visitor's language.
    this.showName(value.demo ? t("model_demo_badge") : value.card, value.demo);
    this.showBanner(value);
    this.showPanel(value);
    if (value.info) showUnsupported(value.info.missing);
    clearTimeout(this.polling);
    if (!canAnswer(value.state)) this.poll();
  }

  /**
   * In the top bar, a way to all that is told about the model, and to the others.
   * @param {string} name
   * @param {boolean} isDemo
   */
  showName(name, isDemo) {
    if (this.name?.textContent === name) return;
    const label = `${t("model_heading")}: ${name}`;
    const button = make("button", { type: "button", class: isDemo ? "badge" : "name", "aria-label": label });
    button.append(make("span", { dir: "auto" }, name));
    button.addEventListener("click", () =>
      showInDrawer("settings", document.querySelector("#models h3") ?? this.element.querySelector("dl")),
    );
    this.name?.replaceChildren(...(name ? [button] : []));
  }

  poll() {
    this.polling = setTimeout(async () => (await this.act("poll")) || this.poll(), LOADING_POLL_MS);
  }

  /**
   * While the model loads, only the numbers change, so that the rest can be read and copied.
   * @param {ModelValue} value
   */
  showBanner(value) {
    const { state, key, values, notices } = value;
    const drawn = JSON.stringify([state, key, values, notices]);
    if (drawn !== this.drawnBanner) this.banner?.replaceChildren(...this.bannerFor(value));
    else if (state === "loading") this.showProgress(value);
    this.drawnBanner = drawn;
  }

  /**
   * It contains a command to copy, which would be impossible if it were rendered twice a second.
   * @param {ModelValue} value
   */
  showPanel(value) {
    const { state, key, card, demo, info, description, command } = value;
    const drawn = JSON.stringify([state, key, card, demo, info, description, command]);
    if (drawn !== this.drawnPanel) this.element.replaceChildren(...modelPanel(value));
    this.drawnPanel = drawn;
  }

  /** Poll the server's mark, in visible tabs: a model server may become unreachable or change while nobody writes. */
  async look() {
    if (!this.mark || document.hidden) return;
    const shown = this.mark;
    const answer = await fetch("magistral/model", { cache: "no-store" }).catch(() => null); // the server is unreachable, which is shown elsewhere
    if (answer?.status === 401) return void loginExpired();
    const mark = answer?.ok ? await answer.text() : shown;
    if (mark !== shown && shown === this.mark) this.act("poll");
  }

  /**
   * Why nothing can be sent, for the composer's placeholder.
   * @param {ModelValue} value
   */
  placeholder({ state, key, vision }) {
    if (onServer(key)) return t("broken_server_heading"); // the remedy is right above
    if (state !== "ready") return t(`page_placeholder_${state}`); // loading, unloaded or broken
    // Images cannot be dropped on touch screens, where the longer text would not fit either.
    return t(vision && matchMedia("(hover: hover)").matches ? "page_placeholder_vision" : "page_placeholder");
  }

  /** @param {ModelValue} value */
  bannerFor(value) {
    if (value.state === "loading") return [this.progress(value)];
    if (value.state !== "broken") return [];
    const retry = make("button", { type: "button", class: "retry" }, t("loading_retry"));
    retry.addEventListener("click", () => {
      retry.disabled = true;
      this.act("retry");
    });
    const text = make(
      "div",
      {},
      make("strong", {}, t(onServer(value.key) ? "broken_server_heading" : "broken_heading")),
      make("p", {}, ...withCommand(value)),
    );
    return [make("div", { class: "broken", role: "alert" }, text, retry)];
  }

  /** @param {ModelValue} value */
  progress(value) {
    this.bar = make("progress", { "aria-label": t("loading_heading") });
    this.facts = make("span");
    this.showProgress(value);
    return make(
      "div",
      { class: "loading" },
      make("strong", {}, t("loading_heading")),
      this.facts,
      this.bar,
      ...notices(value.notices),
    );
  }

  /** @param {ModelValue} value */
  showProgress({ stage, done, total, seconds_left: left }) {
    if (!this.facts || !this.bar) return;
    const facts = [t(`loading_${stage}`)];
    if (total) facts.push(t("loading_bytes", { done: bytes(done), total: bytes(total) }));
    if (left !== null && left !== undefined) facts.push(t("loading_left", { time: duration(left) }));
    this.facts.textContent = facts.join(" · ");
    if (total) Object.assign(this.bar, { max: total, value: done });
    else this.bar.removeAttribute("value"); // the progress is unknown
  }
}
