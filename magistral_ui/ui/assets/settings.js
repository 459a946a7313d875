// The visitor's settings, stored in this browser, and what the page knows about the model; not how they are shown.

/** @import { MeterValue, PanelValue, Parameter, Parameters, Preset, Settings } from "./types.js" */

const SETTINGS_KEY = "magistral-ui-settings";
const PRESETS_KEY = "magistral-ui-presets";
const MAX_PRESETS = 30;
export const MAX_NAME_LENGTH = 40;

/**
 * An observable value.
 * @template T
 */
class Signal {
  /** @param {T} value */
  constructor(value) {
    this.value = value;
    /** @type {((value: NonNullable<T>) => void)[]} */
    this.followers = [];
  }

  /** @param {T} value */
  set(value) {
    this.value = value;
    for (const follower of this.followers) follower(/** @type {NonNullable<T>} */ (value));
  }

  /**
   * Call `follower` now, if there is a value, and at every change.
   * @param {(value: NonNullable<T>) => void} follower
   */
  follow(follower) {
    this.followers.push(follower);
    if (this.value != null) follower(this.value);
  }
}

/** The parameters' table, the card's own values and presets, see ui/sampling_panel.py. */
export const facts = new Signal(/** @type {PanelValue | null} */ (null));
/** The tokens of the next message, see ui/context_meter.py. */
export const measured = new Signal(/** @type {MeterValue | null} */ (null));
/** `params` contains only values other than the card's own; `system_prompts` the edited ones, by card. */
export const settings = new Signal(restored());
/** The visitor's own presets: `{name, values}`. */
export const ownPresets = new Signal(restoredPresets());

/** What is known about the model; null until then. */
export function card() {
  if (!facts.value) throw new Error("the parameters are not here yet");
  return facts.value;
}

/**
 * Merge `changes` into the settings, and store them.
 * @param {Partial<Settings>} changes
 */
export function change(changes) {
  settings.set({ ...settings.value, ...changes });
  keep(SETTINGS_KEY, settings.value);
}

/**
 * All parameters for this model: the visitor's own values, clamped to the bounds, or else the card's.
 * @returns {Parameters}
 */
export function values() {
  const { parameters, own } = card();
  return Object.fromEntries(
    parameters.map((each) => [each.name, clamp(each, settings.value.params[each.name] ?? own[each.name])]),
  );
}

/**
 * Set one parameter; null (or the card's own value) resets it.
 * @param {string} name
 * @param {number | null} value
 */
export function choose(name, value) {
  const params = { ...settings.value.params };
  if (value === null || value === card().own[name]) delete params[name];
  else params[name] = value;
  change({ params });
}

/**
 * Set all values of a preset; the seed stays.
 * @param {Parameters} wanted
 */
export function choosePreset(wanted) {
  /** @type {Parameters} */
  const params = {};
  for (const each of card().parameters) {
    const value = each.name === "seed" ? settings.value.params.seed : clamp(each, wanted[each.name] ?? null);
    if (value !== undefined && value !== card().own[each.name]) params[each.name] = value;
  }
  change({ params });
}

/**
 * Save the current values as the preset `name`, replacing one of that name.
 * @param {string} name
 */
export function savePreset(name) {
  const { seed: _, ...kept } = values();
  const others = ownPresets.value.filter((each) => each.name !== name);
  ownPresets.set([...others, { name, values: kept }].slice(-MAX_PRESETS));
  keep(PRESETS_KEY, ownPresets.value);
}

/**
 * Delete the preset `name`.
 * @param {string} name
 */
export function deletePreset(name) {
  ownPresets.set(ownPresets.value.filter((each) => each.name !== name));
  keep(PRESETS_KEY, ownPresets.value);
}

/** The settings to send with every message. */
export function settingsForRequest() {
  const { params, instructions, system_prompts: prompts, keep_reasoning, picture_side } = settings.value;
  const model = facts.value;
  const changed = model
    ? Object.entries(values()).filter(([name, value]) => name in params && value !== model.own[name])
    : [];
  return {
    params: Object.fromEntries(changed),
    instructions,
    system_prompt: (model && prompts[model.card]) ?? null,
    keep_reasoning,
    picture_side,
  };
}

/**
 * `value` clamped to the parameter's bounds and rounded to a valid value; null if it has none.
 * @param {Parameter} parameter
 * @param {number | null | undefined} value
 */
export function clamp({ low, high, integer, optional }, value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return optional ? null : low;
  const within = Math.min(high, Math.max(low, value));
  return integer ? Math.round(within) : within;
}

/** @returns {Settings} */
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

/** @returns {Preset[]} */
function restoredPresets() {
  const found = read(PRESETS_KEY);
  const sound = (/** @type {any} */ each) =>
    typeof each?.name === "string" && each.name && typeof each.values === "object";
  return Array.isArray(found)
    ? found.filter(sound).map(({ name, values }) => ({ name, values: only(values, Number.isFinite) }))
    : [];
}

/**
 * @param {Record<string, any> | undefined} object
 * @param {(value: unknown) => boolean} holds
 * @returns {Record<string, any>}
 */
function only(object, holds) {
  return Object.fromEntries(Object.entries(object ?? {}).filter(([, value]) => holds(value)));
}

/**
 * @param {string} key
 * @returns {any}
 */
function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null; // storage is disabled, or the value is not ours
  }
}

/**
 * @param {string} key
 * @param {unknown} value
 */
function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage is full or disabled: the settings last until the page is left.
  }
}
