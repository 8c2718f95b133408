// Bundles both outputs: the anywidget module that draws the panel anywhere, and the plugin's code that
// `@jupyter/builder` then turns into a prebuilt JupyterLab extension.
import { copyFile } from "node:fs/promises";

import { build } from "esbuild";

const watch = process.argv.includes("--debug");

/** @type {import("esbuild").BuildOptions} */
const common = {
  bundle: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  loader: { ".css": "text" },
  minify: !watch,
  sourcemap: watch ? "inline" : false,
  logLevel: "info",
  legalComments: "none",
};

await build({
  ...common,
  entryPoints: ["src/panel.ts"],
  outfile: "../jupyter_inplace/static/panel.js",
});

// The one library in the bundles.
await copyFile("node_modules/preact/LICENSE", "../jupyter_inplace/static/LICENSE-preact.txt");

await build({
  ...common,
  entryPoints: ["src/index.ts"],
  outfile: "lib/index.js",
  minify: false, // the builder minifies
  external: ["@jupyterlab/*", "@lumino/*", "@codemirror/*"],
});
