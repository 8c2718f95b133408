import js from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["lib/", "node_modules/"] },
  js.configs.recommended,
  {
    files: ["src/**/*.{ts,tsx}", "tests/**/*.{ts,tsx}"],
    extends: [...tseslint.configs.strictTypeChecked, ...tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      // Numbers stand in sentences and in SVG paths everywhere.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // Everything shown comes from a file that somebody else may have written: no way to make HTML of it.
      "no-restricted-syntax": [
        "error",
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: "No HTML from data." },
        {
          selector: "AssignmentExpression > MemberExpression.left[property.name=/^(innerHTML|outerHTML)$/]",
          message: "No HTML from data.",
        },
      ],
    },
  },
  {
    files: ["tests/**/*.{ts,tsx}"],
    // What a test takes for granted, it fails on.
    rules: { "@typescript-eslint/no-non-null-assertion": "off" },
  },
  {
    files: ["*.mjs", "demo/**/*.mjs"],
    languageOptions: { globals: { process: "readonly", console: "readonly", URL: "readonly" } },
  },
);
