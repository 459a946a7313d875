// Connects the page's parts: mounts each panel section in its Gradio component, and passes the server's responses to the views.

import "./login.js"; // first: the others read what it may clear
import { Attachments } from "./attachments.js";
import { answered, setUpComposer } from "./composer.js";
import { ContextMeter } from "./context_meter.js";
import { ContextSettings } from "./context_settings.js";
import { setUpDraft } from "./draft.js";
import { setUpDrawer } from "./drawer.js";
import { setUpGradioTexts } from "./gradio_texts.js";
import { HistoryView } from "./history.js";
import { LanguageView } from "./language.js";
import { LimitsView } from "./limits.js";
import { ModelState } from "./model_state.js";
import { ModelsView } from "./models.js";
import { ParametersView } from "./parameters.js";
import { PromptView } from "./prompt.js";
import { ask, askLatest, onAnswer, setPlace } from "./server.js";
import { ThinkingControl } from "./thinking.js";
import { Transcript } from "./transcript.js";

/** @import { Composed, Place, Trigger, PendingUpdates } from "./types.js" */

/** @type {Transcript | null} */
let transcript = null;
/** @type {ContextMeter | null} */
let meter = null;
/** @type {Attachments | null} */
let attachments = null;
/** @type {ModelsView | null} */
let models = null;
/** @type {() => void} */
let begin = () => {}; // called once the conversation can be shown
/** @type {Trigger} */
let triggerGradio = () => {}; // makes Gradio fetch what `gradioUpdates` returns
/** @type {PendingUpdates} */
let pendingUpdates = {};
/** @type {Promise<void>} */
const begun = new Promise((resolve) => {
  begin = resolve;
});
/** @type {((message: Composed) => void)[]} */
const readers = []; // callbacks that wait for the composer's content

/**
 * Show the part's initial value in a view, and later those in responses.
 * @param {{ show: (value: any) => void }} view
 * @param {string} part
 * @param {any} value
 */
function bindView(view, part, value) {
  onAnswer(part, (value) => view.show(value));
  if (value) view.show(value);
}

/**
 * The composer's content, including files, which only Gradio knows.
 * @returns {Promise<Composed>}
 */
function content() {
  return new Promise((resolve) => {
    readers.push(resolve);
    triggerGradio("content");
  });
}

/** @param {PendingUpdates} changes */
function tell(changes) {
  pendingUpdates = { ...pendingUpdates, ...changes, composer: { ...pendingUpdates.composer, ...changes.composer } };
  triggerGradio("updates");
}

onAnswer("place", (place) => {
  setPlace(place);
  tell({ place });
});
onAnswer("composer", (composer) => tell({ composer }));
onAnswer("alert", (failure, action) => {
  if (action?.startsWith("models/")) models?.showAlert(failure);
  else transcript?.showAlert(failure);
});
onAnswer("more", (value) => transcript?.above.take(value));
onAnswer("attached", (value) => attachments?.answer(value));
onAnswer("meter", (value) => meter?.show(value));
onAnswer("turns", (value) => {
  transcript?.show(value);
  if (!value.follows) answered(value.alert === null);
  meter?.renew(); // another conversation, or more of it
});

/**
 * The panel sections and other parts, by component name: each is mounted in `element`, with its initial value.
 * @type {Record<string, (element: HTMLElement, value: any, trigger: Trigger) => void>}
 */
const mounts = {
  turns(element, _value, trigger) {
    triggerGradio = trigger;
    transcript = new Transcript(element, (name, data) =>
      name === "ended" ? askLatest("turns/ended") : ask(`turns/${name}`, data),
    );
    begin();
  },
  "history-list"(element) {
    const view = new HistoryView(element, (name, data) => ask(`history/${name}`, data));
    onAnswer("history", (value) => view.show(value));
  },
  language: (element, value) => new LanguageView(element).show(value),
  guest: (element, value) => new LimitsView(element).show(value),
  model(element, value) {
    const view = new ModelState(element, (name) => ask(`model/${name}`));
    onAnswer("model", (value) => {
      view.show(value);
      models?.stateChanged(value.state);
    });
    if (value) view.show(value);
  },
  models(element) {
    const act = (/** @type {string} */ name, data = {}) => ask(`models/${name}`, data);
    models = new ModelsView(element, act, () => void ask("model/poll"));
    onAnswer("models", (value) => models?.show(value));
  },
  parameters: (element, value) => bindView(new ParametersView(element), "parameters", value),
  prompt: (element, value) => bindView(new PromptView(element, () => askLatest("model/compose")), "prompt", value),
  meter(element, { most }) {
    meter = new ContextMeter(element, () =>
      askLatest("composer/weigh", async () => ask("composer/weigh", {}, await content())),
    );
    new ThinkingControl(element);
    const look = async (/** @type {string} */ _name, /** @type {object} */ data = {}) =>
      ask("composer/look", data, await content());
    const attach = () => {
      if (document.querySelector("#box textarea")) attachments = new Attachments(look, most);
      else requestAnimationFrame(attach);
    };
    attach();
  },
  context(element) {
    new ContextSettings(element);
  },
};

/**
 * Called once by each component, with its element and initial value.
 * @param {string} name
 * @param {HTMLElement} element
 * @param {string} value
 * @param {Trigger} trigger
 */
export function mount(name, element, value, trigger) {
  mounts[name](element, value && JSON.parse(value), trigger);
}

/**
 * Gradio has read the place that this browser has stored.
 * @param {Place | null} place
 */
export async function open(place) {
  setPlace(place);
  await begun;
  if (await ask("turns/attach")) return;
  window.magistralUnopened = true;
  dispatchEvent(new Event("unopened"));
}

/** Send the composer's content. */
export const say = (/** @type {Composed} */ message) => void ask("composer/say", {}, message);
export const stop = () => void ask("turns/stop");
export const newChat = () => void ask("turns/new_chat");

/**
 * Pass the composer's content, which Gradio returned, to whoever waits for it.
 * @param {Composed} message
 */
export function composed(message) {
  for (const read of readers.splice(0)) read(message);
}

/** Updates for Gradio's components from responses: the place and the composer's properties; undefined if unchanged. */
export function gradioUpdates() {
  const { place, composer } = pendingUpdates;
  pendingUpdates = {};
  return [place, composer && { ...composer, __type__: "update" }];
}

setUpDrawer("settings", "panel-open", "(min-width: 1100px)");
setUpDrawer("history", "history-open", "(min-width: 1280px)");
setUpComposer();
setUpDraft();
setUpGradioTexts();
