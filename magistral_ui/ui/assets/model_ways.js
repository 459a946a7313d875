// Draws the ways to run a model as radio buttons: GGUF files and the original weights apart, rare quantizations collapsed.

import { make } from "./dom.js";
import { t, unbroken } from "./i18n.js";
import { bestChoice, isGGUF, sourceOf, wayTexts } from "./model_facts.js";

/** @import { ModelEntryValue, ModelWay } from "./types.js" */

const MAX_WAYS = 4; // of one kind that are shown at once
const NEAR_WAYS = 3; // that are shown where there are more: the best and its neighbours

/**
 * @typedef {object} Choosing
 * @property {ModelEntryValue} model
 * @property {ModelEntryValue} shown the same, as it comes from the source that is shown
 * @property {string | undefined} precision that is chosen
 * @property {boolean} isOpen whether the rare ways are open
 * @property {(way: ModelWay) => void} choose
 * @property {(isOpen: boolean) => void} toggle
 */

/** @param {Choosing} choosing */
export function drawWays(choosing) {
  const { model } = choosing;
  const best = model.ways.find(({ precision }) => precision === bestChoice(model)?.precision);
  const kinds = [model.ways.filter(isGGUF), model.ways.filter((way) => !isGGUF(way))];
  if (best && !isGGUF(best)) kinds.reverse();
  const present = kinds.filter((ways) => ways.length);
  const drawn = present.map((ways) => drawKind(ways, present.length > 1 || isGGUF(ways[0]), choosing));
  return make("fieldset", { class: "ways" }, make("legend", {}, t("models_ways")), ...drawn);
}

/**
 * @param {ModelWay[]} ways of one kind
 * @param {boolean} isNamed
 * @param {Choosing} choosing
 */
function drawKind(ways, isNamed, choosing) {
  const name = isGGUF(ways[0]) ? "models_ways_gguf" : "models_ways_original";
  const repositories = new Set(ways.map(repositoryOf));
  const common = repositories.size === 1 && ways.length > 1 ? repositoryOf(ways[0]) : null;
  const near = nearBest(ways, choosing);
  const rest = ways.filter((way) => !near.includes(way));
  const rows = (/** @type {ModelWay[]} */ some) => some.map((way) => drawWay(way, common, choosing));
  return make(
    "fieldset",
    { class: "kind" },
    isNamed ? make("legend", {}, t(name)) : null,
    isNamed ? make("p", { class: "small" }, t(`${name}_help`)) : null,
    common ? make("p", { class: "small" }, make("bdi", { dir: "ltr" }, common)) : null,
    ...rows(near),
    rest.length ? drawRest(rest.length, rows(rest), choosing) : null,
  );
}

/**
 * @param {number} count
 * @param {HTMLElement[]} rows
 * @param {Choosing} choosing
 */
function drawRest(count, rows, { isOpen, toggle }) {
  const summary = make("summary", { data: { act: "more-ways" } }, t("models_ways_more", { count }));
  const details = make("details", { class: "more", open: isOpen }, summary, ...rows);
  details.addEventListener("toggle", () => toggle(details.open));
  return details;
}

/**
 * @param {ModelWay} way
 * @param {Choosing} choosing
 */
const isChosen = (way, { shown, precision }) => way.repository === sourceOf(shown) && way.precision === precision;

/**
 * The ways that are shown at once: all if they are few, else the best, its neighbours, and the chosen one.
 * @param {ModelWay[]} ways
 * @param {Choosing} choosing
 */
function nearBest(ways, choosing) {
  if (ways.length <= MAX_WAYS) return ways;
  const { choices } = choosing.model;
  const best = bestChoice({ ...choosing.model, choices: choices.filter((each) => each.engine === ways[0].engine) });
  const at = ways.findIndex(({ precision }) => precision === best?.precision);
  const first = Math.min(Math.max(0, at - 1), ways.length - NEAR_WAYS);
  return ways.filter((way, index) => (index >= first && index < first + NEAR_WAYS) || isChosen(way, choosing));
}

/**
 * Without the quantization, which the facts name.
 * @param {ModelWay} way
 */
const repositoryOf = ({ repository }) => repository.split(":")[0];

/**
 * @param {ModelWay} way
 * @param {string | null} common the repository that was named above, if all ways have the same
 * @param {Choosing} choosing
 */
function drawWay(way, common, choosing) {
  const { model, choose } = choosing;
  const { facts, source } = wayTexts(way, model);
  const radio = make("input", {
    type: "radio",
    name: `way-${model.key}`,
    checked: isChosen(way, choosing),
    data: { act: `way-${way.repository}-${way.precision}` },
  });
  radio.addEventListener("change", () => choose(way));
  const from = common ? null : make("bdi", { dir: "ltr" }, repositoryOf(way));
  const told = make("span", { class: "unbroken" }, unbroken(facts), make("small", {}, unbroken(source), from));
  return make("label", { class: "way" }, radio, told);
}
