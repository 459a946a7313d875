// Joins the page's parts: Gradio's components hand over their element and their values here.

import "./login.js"; // first: the others read what it may clear
import { Attachments } from "./attachments.js";
import { answered, field, setUpComposer } from "./composer.js";
import { ContextMeter } from "./context_meter.js";
import { ContextSettings } from "./context_settings.js";
import { setUpDraft } from "./draft.js";
import { setUpDrawer } from "./drawer.js";
import { setUpGradioTexts } from "./gradio_texts.js";
import { HistoryView } from "./history.js";
import { LanguageView } from "./language.js";
import { LimitsView } from "./limits.js";
import { ModelState } from "./model_state.js";
import { ParametersView } from "./parameters.js";
import { PromptView } from "./prompt.js";
import { facts, sent, settings } from "./settings.js";
import { Transcript } from "./transcript.js";

/** @import { Act, Component } from "./types.js" */

/** @type {Transcript | null} */
let transcript = null;
/** @type {ContextMeter | null} */
let meter = null;
/** @type {Attachments | null} */
let attachments = null;

/**
 * What a part is drawn in, with what it tells the server; `value()` is what the server says, `set` what the part says.
 * @typedef {{ element: HTMLElement, act: Act, value: () => any, set: (value: object) => void }} Place
 */

/**
 * Draw by a view: now, and at every change.
 * @param {{ show: (value: any) => void }} view
 * @param {() => any} value
 */
const drawnBy = (view, value) => {
  view.show(value());
  return () => view.show(value());
};

/**
 * Each part by the name of its component; it gives what to do when its value changes.
 * @type {Record<string, (place: Place) => (() => void) | void>}
 */
const mounts = {
  turns({ element, act, value }) {
    const view = new Transcript(element, act);
    transcript = view;
    view.show(value());
    return () => {
      view.show(value());
      if (!value().follows) answered(value().alert === null);
      meter?.renew(); // another conversation, or more of it
    };
  },
  "history-list"({ element, act, value }) {
    const view = new HistoryView(element, act);
    return () => view.show(value());
  },
  language: ({ element, value }) => drawnBy(new LanguageView(element), value),
  more: ({ value }) => {
    return () => transcript?.above.take(value());
  },
  guest: ({ element, value }) => drawnBy(new LimitsView(element), value),
  model: ({ element, act, value }) => drawnBy(new ModelState(element, act), value),
  parameters: ({ element, value }) => drawnBy(new ParametersView(element), value),
  prompt: ({ element, act, value }) => drawnBy(new PromptView(element, act), value),
  meter({ element, act, value }) {
    const view = new ContextMeter(element, act);
    meter = view;
    const { most } = value();
    const begin = () => {
      if (field()) attachments = new Attachments(act, most);
      else requestAnimationFrame(begin);
    };
    begin();
    return () => {
      const told = value();
      if (told?.attached) attachments?.answer(told);
      else view.show(told);
    };
  },
  context({ element }) {
    new ContextSettings(element);
  },
  // Nothing to see: the value that goes with every message. It leads, so that whoever asks the server next asks with it.
  chosen({ set }) {
    const tell = () => set(sent());
    facts.lead(tell);
    settings.lead(tell);
  },
};

/**
 * Called once by each component: draws its value, and again whenever that changes.
 * @param {string} name
 * @param {HTMLElement} element
 * @param {Component} component
 */
export function mount(name, element, { props, watch, trigger }) {
  const value = () => props.value && JSON.parse(String(props.value));
  const set = (/** @type {object} */ told) => {
    props.value = told;
  };
  const changed = mounts[name]({ element, act: trigger, value, set });
  if (changed) watch("value", changed);
}

setUpDrawer("settings", "panel-open", "(min-width: 1100px)");
setUpDrawer("history", "history-open", "(min-width: 1280px)");
setUpComposer();
setUpDraft();
setUpGradioTexts();
