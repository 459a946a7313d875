// Joins the page's parts: Gradio's components hand over their element and their values here.

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
import { ParametersView } from "./parameters.js";
import { PromptView } from "./prompt.js";
import { facts, sent, settings } from "./settings.js";
import { Transcript } from "./transcript.js";

let transcript = null;
let meter = null;
let attachments = null;

/** Draw by a view: now, and at every change. */
const drawnBy = (view, value) => {
  view.show(value());
  return () => view.show(value());
};

const mounts = {
  turns(element, act, value) {
    transcript = new Transcript(element, act);
    transcript.show(value());
    return () => {
      transcript.show(value());
      if (!value().follows) answered(value().alert === null);
      meter?.renew(); // another conversation, or more of it
    };
  },
  "history-list"(element, act, value) {
    const view = new HistoryView(element, act);
    return () => view.show(value());
  },
  language: (element, act, value) => drawnBy(new LanguageView(element), value),
  more(element, act, value) {
    return () => transcript?.above.take(value());
  },
  guest: (element, act, value) => drawnBy(new LimitsView(element), value),
  model: (element, act, value) => drawnBy(new ModelState(element, act), value),
  parameters: (element, act, value) => drawnBy(new ParametersView(element), value),
  prompt: (element, act, value) => drawnBy(new PromptView(element, act), value),
  meter(element, act, value) {
    meter = new ContextMeter(element, act);
    const { most } = value();
    const begin = () => {
      if (document.querySelector("#box textarea")) attachments = new Attachments(act, most);
      else requestAnimationFrame(begin);
    };
    begin();
    return () => {
      const told = value();
      if (told?.attached) attachments?.answer(told);
      else meter.show(told);
    };
  },
  context(element) {
    new ContextSettings(element);
  },
  // Nothing to see: the value that goes with every message. It leads, so that whoever asks the server next asks with it.
  chosen(element, act, value, set) {
    const tell = () => set(sent());
    facts.lead(tell);
    settings.lead(tell);
  },
};

/** Called once by each component: draws its value, and again whenever that changes. */
export function mount(name, element, { props, watch, trigger }) {
  const plain = () => props.value && JSON.parse(props.value);
  const set = (value) => (props.value = value);
  const changed = mounts[name](element, trigger, plain, set);
  if (changed) watch("value", changed);
}

setUpDrawer("settings", "panel-open", "(min-width: 1100px)");
setUpDrawer("history", "history-open", "(min-width: 1280px)");
setUpComposer();
setUpDraft();
setUpGradioTexts();
