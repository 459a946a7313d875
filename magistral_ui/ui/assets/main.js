// Joins the page's parts: Gradio's components hand over their element and their values here.

import { ModelView } from "./model.js";
import { setUpPanel } from "./panel.js";
import { Transcript } from "./transcript.js";

let transcript = null;
let early = null; // a live value that came before the transcript was there

const mounts = {
  turns(element, act, value) {
    transcript = new Transcript(element, act);
    transcript.show(value());
    transcript.live(early);
    return () => transcript.show(value());
  },
  live(element, act, value) {
    return () => {
      early = value();
      transcript?.live(early);
    };
  },
  model(element, act, value) {
    const view = new ModelView(element, act);
    view.show(value());
    return () => view.show(value());
  },
};

/** Called once by each component: draws its value, and again whenever that changes. */
export function mount(name, element, { props, watch, trigger }) {
  // Gradio hands out a reactive proxy; a plain copy is faster to read and cannot change while it is drawn.
  const plain = () => props.value && JSON.parse(JSON.stringify(props.value));
  watch("value", mounts[name](element, trigger, name === "live" ? () => props.value : plain));
}

setUpPanel();
