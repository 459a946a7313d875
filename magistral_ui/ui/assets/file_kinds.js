// Tells by their first bytes which files are images that can be sent, whatever their names and the system say.

/** @import { MessageLimits } from "./types.js" */

const HEAD_BYTES = 16;
const AVIF = ["avif", "avis"];
const HEIC = ["heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"];
/**
 * Media type, offset of its signature, and the signature. The server decides whether a file is intact: see chat/images.py.
 * @type {[string, number, string][]}
 */
const MARKS = [
  ["image/png", 0, "\x89PNG"],
  ["image/jpeg", 0, "\xff\xd8\xff"],
  ["image/gif", 0, "GIF8"],
  ["image/bmp", 0, "BM"],
  ["image/webp", 8, "WEBP"],
  ...AVIF.map((brand) => mark("image/avif", brand)),
  ...HEIC.map((brand) => mark("image/heic", brand)),
];

/**
 * The signature of a container of `brand`.
 * @param {string} type
 * @param {string} brand
 * @returns {[string, number, string]}
 */
function mark(type, brand) {
  return [type, 4, `ftyp${brand}`];
}

/**
 * `file` with its real media type, or the reason why it cannot be accepted.
 * @param {File} file
 * @param {MessageLimits} limits
 * @returns {Promise<{ file?: File, why: string, limit?: number }>}
 */
export async function checkFile(file, { bytes }) {
  if (!file.size) return { why: "empty" };
  if (file.size > bytes) return { why: "picture_too_large", limit: Math.floor(bytes / 2 ** 20) };
  const start = await file
    .slice(0, HEAD_BYTES)
    .arrayBuffer()
    .catch(() => null); // a folder, or a file that has been deleted
  if (!start) return { why: "picture_broken" };
  const text = String.fromCharCode(...new Uint8Array(start));
  const [type] = MARKS.find(([, at, sign]) => text.startsWith(sign, at)) ?? [];
  return type ? { file: new File([file], file.name, { type }), why: "" } : { why: "picture_not_an_image" };
}

/**
 * The files in a drag, and the names of the folders in it. Call this during its event.
 * @param {DataTransfer} data
 */
export function brought(data) {
  const entries = [...data.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.());
  const folders = entries.flatMap((entry) => (entry?.isDirectory ? [entry.name] : []));
  const files = [...data.files].filter((_, index) => !entries[index]?.isDirectory);
  return { files, folders };
}
