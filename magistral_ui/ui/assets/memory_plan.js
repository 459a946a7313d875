// Shows how the device's memory is divided: a bar, its numbers, and what fits into it.

import { make } from "./dom.js";
import { bytes, t } from "./i18n.js";

/** @import { ModelInfo } from "./types.js" */

const PARTS = ["weights", "kv_bytes", "working", "margin"];

/**
 * Elements for the plan of `info`, which ui/panels.py sends; none if there is no plan, as with a server.
 * @param {ModelInfo | undefined} info
 */
export function memoryPlan(info) {
  const plan = info?.plan;
  if (!plan) return [];
  const parts = PARTS.map((name) => ({ name, size: plan[name] })).filter(({ size }) => size > 0);
  // The numbers are below it, so screen readers can skip the bar itself.
  const bar = make("div", { class: "shares", "aria-hidden": "true" });
  const list = make("ul", { class: "shares-list" });
  for (const { name, size } of parts) {
    const piece = make("span", { data: { part: name } });
    piece.style.flexGrow = String(size);
    bar.append(piece);
    list.append(
      make("li", { data: { part: name } }, make("span", {}, t(`memory_${name}`)), make("span", {}, bytes(size))),
    );
  }
  const paragraphs = [
    t("memory_context", { count: info.context_length }),
    t("memory_visitors", { count: plan.visitors, tokens: plan.usual }),
  ];
  if (plan.ram_layers) paragraphs.push(t("memory_offload"));
  if (plan.shares.length > 1) {
    paragraphs.push(
      t("memory_spread", { count: plan.shares.length, layers: plan.shares.map((share) => share.layers).join(" + ") }),
    );
  }
  return [make("h3", {}, t("memory_heading")), bar, list, ...paragraphs.map((text) => make("p", {}, text))];
}
