// The rooms of the front end: no module imports itself by way of others, and imports go in one direction. Imports of
// types count, and so do those inside of functions.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

import ts from "typescript";
import { describe, expect, it } from "vitest";

const SRC = join(import.meta.dirname, "..", "src");
/** A room may import from itself and from those before it. What stands in src/ itself puts the rooms together. */
const ROOMS = ["report", "model", "host", "view", "plugin", ""];

function graph(): Map<string, string[]> {
  const names = (readdirSync(SRC, { recursive: true }) as string[]).filter((name) =>
    /(?<!\.d)\.tsx?$/.test(name),
  );
  const found = new Map<string, string[]>();
  for (const name of names) {
    const imported = ts
      .preProcessFile(readFileSync(join(SRC, name), "utf8"))
      .importedFiles.map((file) => file.fileName)
      .filter((path) => path.startsWith(".") && !path.endsWith(".css"))
      .map((path) => normalize(join(dirname(name), path)));
    const targets = imported.map((path) => names.find((other) => other.replace(/\.tsx?$/, "") === path));
    expect(targets, name).not.toContain(undefined);
    found.set(
      name,
      targets.filter((target) => target !== undefined),
    );
  }
  return found;
}

/** The first circle that is found, as the modules on the way; else nothing. */
function circle(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const visit = (name: string, way: readonly string[]): string[] => {
    if (way.includes(name)) return [...way.slice(way.indexOf(name)), name];
    if (done.has(name)) return [];
    for (const next of imports.get(name) ?? []) {
      const found = visit(next, [...way, name]);
      if (found.length > 0) return found;
    }
    done.add(name);
    return [];
  };
  return [...imports.keys()].map((name) => visit(name, [])).find((found) => found.length > 0) ?? [];
}

function room(name: string): number {
  const [first = "", second] = name.split(/[\\/]/);
  return ROOMS.indexOf(second === undefined ? "" : first);
}

describe("the modules", () => {
  const imports = graph();

  it("are all looked at", () => {
    expect(imports.get(join("view", "timeline", "Axis.tsx"))).toContain(join("model", "scale.ts"));
    expect([...imports.keys()].filter((name) => room(name) < 0)).toEqual([]);
  });

  it("import in no circle", () => {
    expect(circle(new Map(Object.entries({ a: ["b"], b: ["c"], c: ["b"] })))).toEqual(["b", "c", "b"]);
    expect(circle(imports)).toEqual([]);
  });

  it("import in one direction", () => {
    const against = [...imports].flatMap(([name, targets]) =>
      targets.filter((target) => room(target) > room(name)).map((target) => `${name} imports ${target}`),
    );
    expect(against).toEqual([]);
  });

  it("are small, and few in a folder", () => {
    const long = [...imports.keys()].filter(
      (name) => readFileSync(join(SRC, name), "utf8").split("\n").length > 400,
    );
    expect(long).toEqual([]);
    const folders = [...imports.keys()].map(dirname);
    const full = folders.filter((folder) => folders.filter((other) => other === folder).length > 20);
    expect(full).toEqual([]);
  });
});
