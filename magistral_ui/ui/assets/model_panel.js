// Shows which model runs here, how and why: the facts, the memory and the hints in the panel. It asks nothing.

import { actionButton, confirmOn, copy, make } from "./dom.js";
import { has, sentence, short, t } from "./i18n.js";
import { memoryPlan } from "./memory_plan.js";
import { precisionHelp, precisionText } from "./model_precision.js";

/** @import { Message, ModelInfo, ModelValue } from "./types.js" */

const LAST_COMMAND = /pip install [\w .:/=<>-]+(?=\u2069?$)/; // at the end of a text, which in Arabic isolates it

/**
 * Whether a failure is that of a model server, so that nothing was to be loaded here.
 * @param {string | undefined} key
 */
export const onServer = (key) => Boolean(key?.startsWith("remote_"));

/**
 * Hints on what could be better on this machine, each with its remedy.
 * @param {Message[] | undefined} messages
 */
export const notices = (messages) =>
  (messages ?? []).map((each) => make("p", { class: "machine-notice" }, ...withCommand(each)));

/**
 * The sentence of a message; a command in it is set apart, to be copied as it is.
 * @param {Message} message
 * @returns {(Node | string)[]}
 */
export function withCommand(message) {
  const text = sentence(message);
  const command = message.values?.command ?? text.match(LAST_COMMAND)?.[0];
  if (!command) return [text];
  const at = text.indexOf(command);
  const button = actionButton("copy-command", "turn_copy", { done: "turn_copied" });
  button.addEventListener("click", async () => {
    await copy(command);
    confirmOn(button);
  });
  const code = make("code", { class: "command", dir: "ltr", tabIndex: 0, translate: false }, command);
  return [text.slice(0, at), code, text.slice(at + command.length), " ", button];
}

/**
 * What there is to know of a model from a GGUF file besides: what runs it, its layers, and its keys and values.
 * @param {ModelInfo} info
 * @returns {[string, string][]}
 */
function ggufRows({ engine, plan }) {
  if (!plan?.kv_type) return [];
  const { gpu_layers: count, ram_layers: others, kv_type: type } = plan;
  /** @type {[string, string][]} */
  const rows = [["details_engine", engine]];
  if (count) rows.push(["model_gpu_layers", t("model_gpu_layers_of", { count, total: count + others })]);
  return [...rows, ["model_kv_cache", precisionText(type)]];
}

/**
 * @param {ModelInfo} info
 * @returns {[string, string | Node][]}
 */
function infoRows(info) {
  /** @type {[string, string | Node][]} */
  const rows = [["model_source", make("bdi", {}, info.source)]];
  if (info.parameters) rows.push(["model_size", t("model_parameters", { count: short(info.parameters) })]);
  if (info.precision) {
    const title = precisionHelp(info.precision) || undefined;
    rows.push(["model_precision", make("span", { title }, precisionText(info.precision))]);
  }
  rows.push([info.chosen_because === "model_on_a_server" ? "model_server" : "model_device", info.device]);
  rows.push(...ggufRows(info));
  rows.push(["model_context", t("turn_tokens", { count: info.context_length })]);
  // The beginning identifies a commit; all of it does not fit on a line.
  const revision = info.revision.replace(/^([0-9a-f]{12})[0-9a-f]{28}$/, "$1");
  if (revision) rows.push(["model_revision", make("span", { title: info.revision }, revision)]);
  return rows;
}

/** @param {ModelValue} value */
export function modelPanel({ state, key, card, demo, info, description, command }) {
  /** @type {[string, string | Node][]} */
  const rows = [["model_name", demo ? t("model_demo_badge") : (info?.name ?? card)], ...(info ? infoRows(info) : [])];
  const list = make("dl", { tabIndex: -1 });
  for (const [key, value] of rows) list.append(make("dt", {}, t(key)), make("dd", {}, value));
  /** @type {HTMLElement[]} */
  const paragraphs = [make("p", {}, t(description))];
  const onServersSide = info?.chosen_because === "model_on_a_server" || onServer(key);
  if (state === "ready" && info && has(info.chosen_because))
    paragraphs.push(make("p", {}, t(info.chosen_because)), ...notices(info.notices));
  // Only who has started the app can start it again.
  if (onServersSide) paragraphs.push(make("p", { class: "for-owner" }, t("model_how_to_choose_server")));
  else
    paragraphs.push(
      make("p", { class: "for-owner switches" }, t("model_how_to_choose")),
      make("pre", { class: "for-owner switches", tabIndex: 0, dir: "ltr" }, make("code", {}, command)),
    );
  return [list, ...memoryPlan(info), ...paragraphs];
}
