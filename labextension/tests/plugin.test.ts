import { describe, expect, it } from "vitest";

import { canWatch, isWatched, unwatched, watched } from "../src/plugin/magicLine";
import { isPainful } from "../src/plugin/pain";
import { literal, readRewound, readSources } from "../src/plugin/kernel";
import { DEFAULTS, readSettings } from "../src/plugin/settings";

describe("the magic line", () => {
  it.each([
    ["x = 1", "%%autograd_watch\nx = 1"],
    ["", "%%autograd_watch\n"],
    ["%%time\nx = 1", "%%time\n%%autograd_watch\nx = 1"],
    ["%matplotlib inline\nx = 1", "%%autograd_watch\n%matplotlib inline\nx = 1"],
  ])("goes on %j and off again", (source, expected) => {
    expect(watched(source)).toBe(expected);
    expect(isWatched(expected)).toBe(true);
    expect(unwatched(expected)).toBe(source);
  });

  it("carries options", () => {
    expect(watched("x = 1", " loss1 --quiet ")).toBe("%%autograd_watch loss1 --quiet\nx = 1");
    expect(unwatched("%%autograd_watch loss1 -q\nx = 1")).toBe("x = 1");
  });

  it("leaves other languages and watched cells alone", () => {
    for (const source of ["%%bash\nls", "%%autograd_watch loss\nx"]) expect(watched(source)).toBe(source);
    expect(canWatch("%%html\n<b>")).toBe(false);
    expect(isWatched("x = 1\n%%autograd_watch")).toBe(false);
    expect(isWatched("s = '%%autograd_watch'")).toBe(false);
  });
});

describe("the moment of pain", () => {
  it.each([
    "one of the variables needed for gradient computation has been modified by an inplace operation: [torch.FloatTensor [4]]",
    "a leaf Variable that requires grad is being used in an in-place operation.",
    "a view of a leaf Variable that requires grad is being used in an in-place operation.",
    "Output 0 of UnbindBackward0 is a view and is being modified inplace. This view is the output of a function that returns multiple views.",
  ])("knows torch's words: %s", (evalue) => {
    expect(isPainful({ ename: "RuntimeError", evalue, traceback: [] })).toBe(true);
  });

  it("leaves other errors alone", () => {
    expect(isPainful({ ename: "RuntimeError", evalue: "CUDA out of memory" })).toBe(false);
    for (const odd of [null, 3, "text", { evalue: 3 }]) expect(isPainful(odd)).toBe(false);
  });
});

describe("the kernel's answer", () => {
  // Left: what Python's repr gives for the JSON text.
  it.each([
    [`'{"restored": ["w"], "not_restored": []}'`, ["w"], [], null],
    [
      `'{"restored": [], "not_restored": [{"name": "it\\'s", "reason": "a\\\\nb"}]}'`,
      [],
      [{ name: "it's", reason: "a\nb" }],
      null,
    ],
    [
      `"{\\"restored\\": [], \\"not_restored\\": [\\"n\\"], \\"reason\\": \\"no state\\"}"`,
      [],
      [{ name: "n", reason: "" }],
      "no state",
    ],
    [`'{"restored": ["\\xe9"]}'`, ["é"], [], null],
  ])("reads %s", (repr, restored, notRestored, reason) => {
    expect(readRewound(repr)).toEqual({ restored, notRestored, reason });
  });

  it("says so where it cannot be read", () => {
    expect(readRewound("None").reason).toBe("the kernel's answer could not be read");
  });
});

describe("what goes to the kernel", () => {
  it("is a literal of ASCII that Python reads back", () => {
    const evil = '") or __import__("os").system("id") #\n\u2028é😀';
    const text = literal(evil);
    expect(text).toMatch(/^"[\x20-\x7e]*"$/);
    expect(JSON.parse(text)).toBe(evil);
    expect(text.slice(1, -1).replace(/\\./g, "")).not.toContain('"');
  });

  it("comes back as lines of files, or not at all", () => {
    expect(readSources(`'{"block.py:4": {"text": "y.mul_(2)", "line_text": "y.mul_(2)  # x"}}'`)).toEqual({
      "block.py:4": { text: "y.mul_(2)", line_text: "y.mul_(2)  # x" },
    });
    for (const odd of ["'{}'", "None", "'[1]'", `'{"a": {"text": 3}}'`]) expect(readSources(odd)).toBeNull();
  });
});

describe("settings", () => {
  it("fall back one by one", () => {
    expect(readSettings({})).toEqual(DEFAULTS);
    expect(readSettings({ marks: false, toolbar: "yes", options: "loss1\nimport os" })).toEqual({
      ...DEFAULTS,
      marks: false,
      options: "loss1 import os",
    });
  });
});
