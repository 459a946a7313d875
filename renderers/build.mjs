// Writes assets/vendor/: the third-party renderers as one minified module, KaTeX's stylesheet and fonts, and their licences.

import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = "magistral_ui/ui/assets/vendor";
rmSync(out, { recursive: true, force: true });
mkdirSync(`${out}/fonts`, { recursive: true });

await build({
  entryPoints: ["renderers/entry.mjs"],
  outfile: `${out}/renderers.js`,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
});

// The types are those of the packages.
cpSync("renderers/entry.d.ts", `${out}/renderers.d.ts`);

// Browsers that run this page all read woff2, so the other two formats of each font are left out.
const css = readFileSync("node_modules/katex/dist/katex.min.css", "utf8");
writeFileSync(`${out}/katex.css`, css.replace(/,url\([^)]*\.(?:woff|ttf)\) format\("[^"]*"\)/g, ""));
for (const font of readdirSync("node_modules/katex/dist/fonts")) {
  if (font.endsWith(".woff2")) cpSync(`node_modules/katex/dist/fonts/${font}`, `${out}/fonts/${font}`);
}

const bundled = [
  "markdown-it",
  "markdown-it-footnote",
  "linkify-it",
  "mdurl",
  "uc.micro",
  "entities",
  "punycode.js",
  "katex",
  "dompurify",
  "highlight.js",
];
const licences = bundled.map((name) => {
  const folder = `node_modules/${name}`;
  const { version, license, homepage, repository } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[sc]e/i.test(each));
  const text = file ? readFileSync(`${folder}/${file}`, "utf8").trim() : "";
  const home = homepage ?? repository?.url ?? repository ?? "";
  return `${name} ${version} (${license}) ${home}\n\n${text}\n`;
});
// KaTeX's extension for chemistry has a licence of its own, at its beginning.
const mhchem = readFileSync("node_modules/katex/dist/contrib/mhchem.mjs", "utf8");
const words = [...mhchem.matchAll(/^\/\*\*+$([\s\S]*?)\*\//gm)].map((match) =>
  match[1].replace(/^ \*+ ?/gm, "").trim(),
);
licences.push(
  `katex/contrib/mhchem (MIT and Apache-2.0) https://mhchem.github.io\n\n${words.slice(0, 2).join("\n\n")}\n`,
);
writeFileSync(`${out}/LICENSES.txt`, licences.join(`\n${"-".repeat(80)}\n\n`));
