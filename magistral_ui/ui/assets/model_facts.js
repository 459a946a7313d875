// The texts about a model and the ways to get it, their order, and the actions that are offered; it draws nothing.

import { bytes, duration, inRow, number, percent, t } from "./i18n.js";
import { bitsOf, precisionText } from "./model_precision.js";

/** @import { ModelChoice, ModelEntryValue, ModelsValue, ModelWay } from "./types.js" */

// Names of benchmarks are the same in every language.
const BENCHMARKS = {
  aime25: "AIME25",
  aime24: "AIME24",
  gpqa_diamond: "GPQA Diamond",
  livecodebench: "LiveCodeBench",
};
/** By precedence: of several sources of the same model, the page shows the one whose state comes first. */
const TELLING_STATES = ["downloading", "complete", "paused", "partial"];
const MIN_CONTEXT_OFFERED = 8_192; // tokens

/**
 * The list with each quantized copy under the model that it was made from.
 * @param {ModelEntryValue[]} models
 */
export function withCopies(models) {
  const keys = new Set(models.map(({ key }) => key));
  return models
    .filter(({ original }) => !original || !keys.has(original))
    .map((model) => ({ ...model, copies: models.filter(({ original }) => original === model.key) }));
}

/** @param {ModelEntryValue} model */
const entriesOf = (model) => [model, ...(model.copies ?? [])];

/**
 * Whether it runs in llama.cpp, from a GGUF file.
 * @param {{ engine?: string }} way
 */
export const isGGUF = ({ engine }) => engine === "llama.cpp";

/**
 * Where a model comes from, as its ways name it: a repository, and of a repository of GGUF files the quantization.
 * @param {ModelEntryValue} model
 */
export const sourceOf = ({ original, key, repository }) => (original ? key : repository);

/**
 * Whether this model is the current one, as the original or as a copy.
 * @param {ModelEntryValue} model
 * @param {ModelsValue["current"]} current
 */
export const isCurrent = (model, current) => entriesOf(model).some(({ key }) => key === current.key);

/**
 * Sorted for reading: the model in use, then what can run here, then the rest.
 * @param {ModelsValue} value
 */
export function ordered({ models, current }) {
  const rank = (/** @type {ModelEntryValue} */ each) =>
    isCurrent(each, current) ? 0 : each.fits ? (each.best ? 1 : 2) : 3;
  return [...models].sort((one, other) => rank(one) - rank(other));
}

/**
 * The source that is shown unless another one is chosen: in use, being downloaded or on disk; else that of the best choice.
 * @param {ModelEntryValue} model
 * @param {ModelsValue["current"]} current
 */
export function likelySource(model, current) {
  const all = entriesOf(model);
  const telling = TELLING_STATES.map((state) => all.find((each) => each.state === state));
  const found = all.find(({ key }) => key === current.key) ?? telling.find(Boolean);
  return found ? sourceOf(found) : bestSource(model);
}

/** @param {ModelEntryValue} model */
function bestSource(model) {
  const best = bestChoice(model)?.precision;
  return model.ways.find(({ precision }) => precision === best)?.repository ?? model.repository;
}

/**
 * The model as it comes from `source`: the facts are the original's, what is on disk is that source's.
 * @param {ModelEntryValue} model
 * @param {string} source
 * @returns {ModelEntryValue}
 */
export function asFrom(model, source) {
  const ways = model.ways.filter((way) => way.repository === source);
  const choices = model.choices.filter(({ precision }) => ways.some((way) => way.precision === precision));
  if (source === sourceOf(model)) return model.ways.length ? { ...model, choices } : model;
  const size = ways[0]?.download ?? 0;
  const nothing = { state: /** @type {const} */ ("absent"), on_disk: 0, download: size, done: 0, total: size };
  const known = model.copies?.find((each) => sourceOf(each) === source);
  const { state, on_disk, download, done, total } = known ?? nothing;
  return {
    ...model,
    ...{ state, on_disk, download, done, total, choices },
    repository: known?.repository ?? source.split(":")[0],
    key: known?.key ?? source,
    quantization: known?.quantization ?? "",
    original: model.key,
    fits: model.fits && (ways[0]?.fits ?? true),
    seconds: null,
    seconds_left: known?.seconds_left ?? null,
    failure: known?.failure ?? null,
  };
}

/**
 * The model with this key in the list, also as one of its sources that is not on this computer yet.
 * @param {ModelEntryValue[]} models with their copies
 * @param {string | null} key
 */
export function findModel(models, key) {
  const model = models.find((each) => each.key === key);
  const parent = models.find(
    ({ ways, copies }) => ways.some(({ repository }) => repository === key) || copies?.some((each) => each.key === key),
  );
  return model ?? (parent && key ? asFrom(parent, key) : undefined);
}

/**
 * The name; the demo model has one in each language.
 * @param {ModelEntryValue} model
 */
export const nameOf = (model) => (model.key === "demo" ? t("model_demo_badge") : model.name);

/**
 * The choice that is taken unless another is made: the one whose pace is known, which is the best here.
 * @param {ModelEntryValue} model
 * @returns {ModelChoice | undefined}
 */
export const bestChoice = ({ choices }) => choices.find(({ pace }) => pace !== null) ?? choices[0];

/** @param {ModelChoice | undefined} choice */
export function paceText(choice) {
  if (!choice?.pace) return null;
  const rate = number(choice.pace < 10 ? Math.round(choice.pace * 10) / 10 : Math.round(choice.pace));
  return t(choice.measured ? "models_pace_measured" : "models_pace", { rate });
}

/**
 * Memory and pace, after the precision without which no two models compare.
 * @param {ModelChoice | undefined} choice
 */
export function choiceText(choice) {
  if (!choice?.needs) return "";
  return inRow([precisionText(choice.precision), t("models_memory", { size: bytes(choice.needs) }), paceText(choice)]);
}

/**
 * What there is to download, and how much smaller an already quantized copy is, if there is one.
 * @param {ModelEntryValue} model
 */
export function downloadTexts({ download, original, repository, ways }) {
  if (original) return [t("models_download_about", { size: bytes(download) })];
  const copies = ways.filter(
    (way) => !isGGUF(way) && way.repository !== repository && way.download && way.download < download,
  );
  const smallest = copies.sort((one, other) => one.download - other.download)[0];
  const told = [t("models_download_size", { size: bytes(download) })];
  if (smallest) told.push(t("models_download_copy", { size: bytes(smallest.download), precision: smallest.precision }));
  return told;
}

/**
 * The progress of a download, such as “3 GB of 18 GB · about 4 minutes left”.
 * @param {ModelEntryValue} model
 */
export function progressText({ done, total, seconds_left: left }) {
  const isKnown = left !== null;
  const size = t("loading_bytes", { done: bytes(done), total: bytes(total) });
  return inRow([size, isKnown ? t("loading_left", { time: duration(left) }) : null]);
}

/**
 * What is on this computer, and how much of it; null for what belongs to the app or the operator.
 * @param {ModelEntryValue} model
 */
export function diskText(model) {
  const { state, on_disk: held } = model;
  if (state === "local") return null;
  if (state === "absent") return inRow(downloadTexts(model));
  if (state === "complete") return t("models_on_disk", { size: bytes(held) });
  return `${t(`models_state_${state}`)}: ${progressText(model)}`;
}

/** @param {ModelEntryValue} model */
export const benchmarksOf = ({ benchmarks }) =>
  Object.entries(BENCHMARKS)
    .filter(([key]) => benchmarks[key] !== undefined)
    .map(([key, name]) => /** @type {[string, string]} */ ([name, percent(benchmarks[key])]));

/**
 * What a way takes: its precision with memory and pace, then the download, and where the model is quantized.
 * @param {ModelWay} way
 * @param {ModelEntryValue} model
 */
export function wayTexts(way, model) {
  const { repository, precision, memory, download } = way;
  const choice = model.choices.find((each) => each.precision === precision);
  const size = bytes(choice?.needs ?? memory);
  const facts = [precisionText(precision), t("models_memory", { size }), paceText(choice)];
  const isCopy = repository !== model.repository;
  const from = asFrom(model, repository);
  const toDownload = isCopy ? "models_download_about" : "models_download_size";
  const files =
    from.state === "complete"
      ? t("models_on_disk", { size: bytes(from.on_disk) })
      : t(toDownload, { size: bytes(download) });
  return { facts: inRow(facts), source: inRow([files, isGGUF(way) ? null : quantizedText(precision, isCopy)]) };
}

/**
 * @param {string} precision
 * @param {boolean} isCopy
 */
function quantizedText(precision, isCopy) {
  if (isCopy) return t("models_way_copy");
  return bitsOf(precision) < 16 ? t("models_way_here") : null;
}

/**
 * The actions that make sense for a model in this state, the most wanted first.
 * @param {ModelEntryValue} model
 * @param {ModelsValue["current"]} current
 */
export function actionsFor({ key, state, fits }, current) {
  const isInUse = key === current.key;
  const found = [];
  if (isInUse && current.state === "ready" && key !== "demo") found.push("unload");
  if (!isInUse && fits && (state === "complete" || state === "local")) found.push("use");
  if (fits && state === "absent") found.push("download");
  if (state === "downloading") found.push("pause");
  if (fits && (state === "partial" || state === "paused")) found.push("resume");
  if (!isInUse && ["partial", "paused", "complete"].includes(state)) found.push("remove");
  return found;
}

/**
 * The context lengths to choose from, up to what fits.
 * @param {number} most
 */
export function contextsUpTo(most) {
  const found = [];
  for (let tokens = MIN_CONTEXT_OFFERED; tokens < most; tokens *= 2) found.push(tokens);
  return [...found, most];
}
