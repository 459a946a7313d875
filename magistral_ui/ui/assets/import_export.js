// Exports and imports files of conversations, with a one-time ticket from the list's actions.

import { make } from "./dom.js";

/** @import { Exchanged, Ticket } from "./types.js" */

/**
 * Download the export that the ticket is for; returns `{}` or `{failure}`.
 * @param {Ticket} ticket
 * @returns {Promise<Exchanged>}
 */
export async function exportFile({ token, name }) {
  const response = await fetch("magistral/export", { headers: { "X-Ticket": token }, cache: "no-store" });
  if (response.status === 429) return response.json();
  if (!response.ok) throw new Error(response.statusText);
  const address = URL.createObjectURL(await response.blob());
  const link = make("a", { href: address, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return {};
}

/**
 * Upload a file to import; returns `{imported}` or `{failure}`.
 * @param {Ticket} ticket
 * @param {File} file
 * @returns {Promise<Exchanged>}
 */
export async function importFile({ token }, file) {
  const response = await fetch("magistral/import", { method: "POST", headers: { "X-Ticket": token }, body: file });
  if (!response.ok) throw new Error(response.statusText);
  return response.json();
}
