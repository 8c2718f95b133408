import { readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";

export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  plugins: [
    {
      // As build.mjs does: a style sheet is a text.
      name: "css-as-text",
      enforce: "pre",
      load(id) {
        return id.endsWith(".css") ? `export default ${JSON.stringify(readFileSync(id, "utf8"))}` : null;
      },
    },
  ],
  test: { environment: "happy-dom", include: ["tests/**/*.test.{ts,tsx}"] },
});
