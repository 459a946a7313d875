// Tells by their first bytes which files are pictures that can be sent; what their names and the system say does not count.

const HEAD_BYTES = 16;
/** Media type, where its mark stands, and the mark. Which of them are sound is for the server to say: see chat/images.py. */
const MARKS = [
  ["image/png", 0, "\x89PNG"],
  ["image/jpeg", 0, "\xff\xd8\xff"],
  ["image/gif", 0, "GIF8"],
  ["image/bmp", 0, "BM"],
  ["image/webp", 8, "WEBP"],
  ...["avif", "avis"].map((brand) => ["image/avif", 4, `ftyp${brand}`]),
  ...["heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"].map((brand) => [
    "image/heic",
    4,
    `ftyp${brand}`,
  ]),
];

/** `file` under its right media type, or `{why}`: the reason why it cannot be taken. */
export async function checkFile(file, { bytes }) {
  if (!file.size) return { why: "empty" };
  if (file.size > bytes) return { why: "picture_too_large", limit: Math.floor(bytes / 2 ** 20) };
  const start = await file
    .slice(0, HEAD_BYTES)
    .arrayBuffer()
    .catch(() => null); // a folder, or gone since
  if (!start) return { why: "picture_broken" };
  const text = String.fromCharCode(...new Uint8Array(start));
  const mark = MARKS.find(([, at, sign]) => text.startsWith(sign, at));
  return mark ? { file: new File([file], file.name, { type: mark[0] }) } : { why: "picture_not_an_image" };
}

/** The files that a drag brings, and the names of the folders in it. Has to be called before its event is over. */
export function brought(data) {
  const entries = [...data.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.());
  const folders = entries.filter((entry) => entry?.isDirectory).map((entry) => entry.name);
  const files = [...data.files].filter((file, index) => !entries[index]?.isDirectory);
  return { files, folders };
}
