// The owner's models: the list in the settings, the offer above the composer, and the questions that an action raises.

import { askToChoose } from "./choice_dialog.js";
import { within } from "./composer.js";
import { fillAlert, make, place } from "./dom.js";
import { showInDrawer } from "./drawer.js";
import { bytes, duration, inRow, sentence, t } from "./i18n.js";
import { ModelEntry } from "./model_entry.js";
import { asFrom, bestChoice, findModel, isCurrent, likelySource, nameOf, ordered, withCopies } from "./model_facts.js";
import { ModelOffer } from "./model_offer.js";

/** @import { Act, ChosenRun, Message, ModelEntryValue, ModelsValue } from "./types.js" */

const POLL_MS = 1_000; // between two requests while a model is downloaded or loaded
const WANTED_KEY = "magistral-ui-wanted-model"; // in sessionStorage: what to switch to once it is downloaded
const IDLE_MINUTES = [0, 5, 15, 30, 60, 240];

export class ModelsView {
  /**
   * @param {HTMLElement} element
   * @param {Act} act asks for an action on models
   * @param {() => void} look has the page look at the model that runs now
   */
  constructor(element, act, look) {
    this.element = element;
    this.act = act;
    this.look = look;
    this.isOwner = true; // until the server says otherwise
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {ModelsValue | null} */
    this.value = null;
    /** @type {Map<string, ModelEntry>} */
    this.entries = new Map();
    /** @type {{ name: string, data: object }} */
    this.latest = { name: "list", data: {} }; // what to send again once the owner has chosen what happens to running replies
    /** @type {string | undefined} */
    this.shownFailure = undefined;
    this.offer = new ModelOffer((action, model) => this.perform(action, model));
    this.alert = make("div", { class: "failure", role: "alert", hidden: true });
    this.list = make("ul", { class: "model-entries" });
    this.refused = make("ul", { class: "model-entries" });
    this.refusedHeading = make("h4", { class: "refused-heading" }, t("models_refused_heading"));
    this.device = make("p", { class: "small" });
    this.idle = make("select", { id: "models-idle" });
    this.idle.addEventListener("change", () => this.send("idle", { minutes: Number(this.idle.value) }));
    addEventListener("click", (event) => {
      if (within(event, "#settings-toggle")) this.refresh();
    });
    this.refresh();
  }

  /** Ask for the list; nobody but the owner asks twice. */
  async refresh() {
    clearTimeout(this.timer);
    if (this.isOwner) await this.act("list");
  }

  /** @param {ModelsValue} value */
  show(value) {
    this.isOwner = value.owner;
    if (value.owner) document.body.dataset.owner = value.switchable ? "switches" : "";
    if (!value.owner) return;
    if (!value.switchable) return this.showWhyNot(value);
    const before = this.value?.current;
    this.value = value;
    this.draw(value);
    if (before && JSON.stringify(before) !== JSON.stringify(value.current)) this.look();
    this.continueWanted(value);
    const isBusy = value.current.state === "loading" || value.models.some(({ state }) => state === "downloading");
    clearTimeout(this.timer);
    if (isBusy || value.timing) this.timer = setTimeout(() => this.refresh(), POLL_MS);
    if (value.asks === "running") this.askAboutRunning(value.running);
  }

  /** @param {ModelsValue} value */
  showWhyNot({ why_not: reason }) {
    if (!reason || this.element.querySelector("h3")) return; // it never changes, and the heading may have the focus
    const heading = make("h3", { tabIndex: -1 }, t("models_heading"));
    this.element.replaceChildren(heading, make("p", {}, sentence(reason)));
  }

  /**
   * A state that another request reported, such as that the model was unloaded.
   * @param {string} state
   */
  stateChanged(state) {
    if (this.value?.switchable && this.value.current.state !== state) this.refresh();
  }

  /**
   * An action was refused: the sentence stays until it is dismissed or an action succeeds.
   * @param {Message | string | null} failure
   */
  showAlert(failure) {
    fillAlert(this.alert, failure);
    if (failure && !this.element.contains(this.alert)) this.element.replaceChildren(this.alert);
  }

  /** @param {ModelsValue} value */
  draw(value) {
    if (!this.element.contains(this.list)) this.lay();
    const models = ordered({ ...value, models: withCopies(value.models) });
    const listed = models.filter((each) => each.fits || isCurrent(each, value.current));
    const others = models.filter((each) => !listed.includes(each));
    place(this.list, this.drawEntries(listed, value));
    place(this.refused, this.drawEntries(others, value));
    this.refusedHeading.hidden = this.refused.hidden = !others.length;
    const { free, total } = value.memory;
    this.device.textContent = inRow([
      total ? t("models_device", { device: value.device, free: bytes(free), total: bytes(total) }) : value.device,
      t("models_disk_free", { size: bytes(value.disk_free) }),
    ]);
    this.drawIdle(value.idle_minutes);
    this.showFailure(value);
    const wanted = findModel(models, wantedKey());
    const offered = models.find(({ key }) => key === value.offer);
    const shown = wanted ?? (offered && asFrom(offered, likelySource(offered, value.current)));
    this.offer.show(shown, value, Boolean(wanted));
  }

  /**
   * A load that failed is told once it is over; the same failure again is news only after another attempt. A download's stands
   * with its model.
   * @param {ModelsValue} value
   */
  showFailure({ failure, current, models }) {
    const told = JSON.stringify(failure);
    if (current.state === "loading") this.shownFailure = undefined;
    else if (failure && told !== this.shownFailure && !models.some((each) => JSON.stringify(each.failure) === told))
      this.showAlert(failure);
    if (current.state !== "loading") this.shownFailure = told;
  }

  lay() {
    const idle = make("label", { class: "idle" }, make("span", {}, t("models_idle")), this.idle);
    const heading = make("h3", { tabIndex: -1 }, t("models_heading"));
    this.element.replaceChildren(heading, this.device, this.alert, this.list, this.refusedHeading, this.refused, idle);
  }

  /**
   * @param {ModelEntryValue[]} models
   * @param {ModelsValue} value
   */
  drawEntries(models, value) {
    return models.map((model) => {
      const entry =
        this.entries.get(model.key) ?? new ModelEntry((action, about, chosen) => this.perform(action, about, chosen));
      this.entries.set(model.key, entry);
      entry.show(model, value.current);
      return entry.element;
    });
  }

  /** @param {number} minutes */
  drawIdle(minutes) {
    if (document.activeElement === this.idle) return;
    const offered = [...new Set([...IDLE_MINUTES, minutes])].sort((one, other) => one - other);
    const label = (/** @type {number} */ each) => (each ? duration(each * 60) : t("models_idle_never"));
    this.idle.replaceChildren(...offered.map((each) => make("option", { value: String(each) }, label(each))));
    this.idle.value = String(minutes);
  }

  /**
   * @param {string} action
   * @param {ModelEntryValue} model
   * @param {ChosenRun} chosen
   */
  async perform(action, model, chosen = { precision: null, context: null }) {
    const { key } = model;
    if (action === "get") {
      want(key);
      return this.send("download", { key });
    }
    if (action === "options") return this.openOptions(model.original ?? key);
    if (action === "resume") return this.send("download", { key });
    if (action === "use")
      return this.send("switch", { key, ...chosen, precision: chosen.precision ?? this.precisionOf(model) });
    if (action === "unload") return this.send("unload", {});
    if (action === "remove") {
      const question = t("models_remove_question", { name: nameOf(model) });
      if (!(await askToChoose(question, [{ name: "remove", label: t("models_remove") }]))) return;
    }
    return this.send(action, { key });
  }

  /**
   * The precision to ask for if nobody chose one: the best of a source which is not the best one, else the app's own choice.
   * @param {ModelEntryValue} shown
   */
  precisionOf(shown) {
    const model = this.value?.models.find(({ key }) => key === shown.key);
    const best = bestChoice(shown)?.precision ?? null;
    return !model || shown.original || best === bestChoice(model)?.precision ? null : best;
  }

  /**
   * Show what there is to choose for a model, in the settings.
   * @param {string} key
   */
  openOptions(key) {
    const details = this.entries.get(key)?.element.querySelector("details");
    if (details) details.open = true;
    showInDrawer("settings", details?.querySelector("summary") ?? null, "center");
  }

  /**
   * @param {string} name
   * @param {object} data
   */
  async send(name, data) {
    this.latest = { name, data };
    this.showAlert(null);
    await this.act(name, data);
  }

  /**
   * Switch to what was downloaded for that; a download that failed is not waited for.
   * @param {ModelsValue} value
   */
  continueWanted({ models, current }) {
    const key = wantedKey();
    const model = findModel(withCopies(models), key);
    if (!key) return;
    if (!model || model.failure || key === current.key) want(null);
    else if (model.state === "complete" && current.state !== "loading") {
      want(null);
      this.send("switch", { key });
    }
  }

  /** @param {number} count of replies that are being written */
  async askAboutRunning(count) {
    const { name, data } = this.latest;
    const running = await askToChoose(t("models_running_question", { count }), [
      { name: "wait", label: t("models_running_wait") },
      { name: "stop", label: t("models_running_stop") },
    ]);
    if (running) await this.send(name, { ...data, running });
  }
}

const wantedKey = () => sessionStorage.getItem(WANTED_KEY);

/** @param {string | null} key */
function want(key) {
  if (key) sessionStorage.setItem(WANTED_KEY, key);
  else sessionStorage.removeItem(WANTED_KEY);
}
