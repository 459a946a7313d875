// What the visitor chose, kept in this browser, and what the page knows of the model that it is for; not how it is shown.

const SETTINGS_KEY = "magistral-ui-settings";
const PRESETS_KEY = "magistral-ui-presets";
const MAX_PRESETS = 30;
export const MAX_NAME_LENGTH = 40;

/** A value that others follow. */
class Signal {
  constructor(value) {
    this.value = value;
    this.followers = [];
  }

  set(value) {
    this.value = value;
    for (const follower of this.followers) follower(value);
  }

  /** Call `follower` now, where there is a value, and at every change. */
  follow(follower) {
    this.followers.push(follower);
    if (this.value !== null) follower(this.value);
  }
}

/** The parameters' table, the card's own values and presets, see ui/sampling_panel.py. */
export const facts = new Signal(null);
/** What the next message would cost, see ui/context_meter.py. */
export const measured = new Signal(null);
/** `params` holds only what is not the card's own; `system_prompts` those that were edited, by card. */
export const settings = new Signal(restored());
/** The visitor's own presets: `{name, values}`. */
export const ownPresets = new Signal(restoredPresets());

/** Lay `changes` over the settings, and keep them. */
export function change(changes) {
  settings.set({ ...settings.value, ...changes });
  keep(SETTINGS_KEY, settings.value);
}

/** Every parameter's value on this model: the visitor's own within its bounds, or else the card's. */
export function values() {
  const { parameters, own } = facts.value;
  return Object.fromEntries(parameters.map((each) => [each.name, bounded(each, settings.value.params[each.name] ?? own[each.name])]));
}

/** Choose the value of one parameter; null (or the card's own value) gives it back to the card. */
export function choose(name, value) {
  const params = { ...settings.value.params };
  if (value === null || value === facts.value.own[name]) delete params[name];
  else params[name] = value;
  change({ params });
}

/** Choose all values of a preset; the seed stays. */
export function choosePreset(wanted) {
  const params = {};
  for (const each of facts.value.parameters) {
    const value = each.name === "seed" ? settings.value.params.seed : bounded(each, wanted[each.name] ?? null);
    if (value !== undefined && value !== facts.value.own[each.name]) params[each.name] = value;
  }
  change({ params });
}

/** Keep the present values under `name`, in the place of the preset that had it. */
export function savePreset(name) {
  const { seed: _, ...kept } = values();
  const others = ownPresets.value.filter((each) => each.name !== name);
  ownPresets.set([...others, { name, values: kept }].slice(-MAX_PRESETS));
  keep(PRESETS_KEY, ownPresets.value);
}

/** Forget the preset `name`. */
export function deletePreset(name) {
  ownPresets.set(ownPresets.value.filter((each) => each.name !== name));
  keep(PRESETS_KEY, ownPresets.value);
}

/** What goes with every message. */
export function sent() {
  const { params, instructions, system_prompts: prompts, keep_reasoning, picture_side } = settings.value;
  const card = facts.value;
  const changed = card ? Object.entries(values()).filter(([name, value]) => name in params && value !== card.own[name]) : [];
  return {
    params: Object.fromEntries(changed),
    instructions,
    system_prompt: (card && prompts[card.card]) ?? null,
    keep_reasoning,
    picture_side,
  };
}

/** `value` as the parameter can have it; null where it has none. */
export function bounded({ low, high, integer, optional }, value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return optional ? null : low;
  const within = Math.min(high, Math.max(low, value));
  return integer ? Math.round(within) : within;
}

function restored() {
  const { params, instructions, system_prompts: prompts, keep_reasoning, picture_side } = read(SETTINGS_KEY) ?? {};
  return {
    params: only(params, Number.isFinite),
    instructions: typeof instructions === "string" ? instructions : "",
    system_prompts: only(prompts, (each) => typeof each === "string"),
    keep_reasoning: keep_reasoning !== false,
    picture_side: Number.isInteger(picture_side) ? picture_side : null,
  };
}

function restoredPresets() {
  const found = read(PRESETS_KEY);
  const sound = (each) => typeof each?.name === "string" && each.name && typeof each.values === "object";
  return Array.isArray(found) ? found.filter(sound).map(({ name, values }) => ({ name, values: only(values, Number.isFinite) })) : [];
}

function only(object, holds) {
  return Object.fromEntries(Object.entries(object ?? {}).filter(([, value]) => holds(value)));
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null; // switched off, or not ours
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Full, or switched off: the settings hold until the page is left.
  }
}
