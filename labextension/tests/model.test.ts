import { describe, expect, it } from "vitest";

import { changedRange, diffLines } from "../src/model/diff";
import { fold } from "../src/model/glyphs";
import { rows } from "../src/model/lanes";
import { pan, zoom } from "../src/model/scale";
import { initial, ofGradient, step, touchesEvent } from "../src/model/selection";
import { findInCell, findInLine, tokens } from "../src/model/source";
import { buildTable, filterRows, sortRows } from "../src/model/table";
import { layOut } from "../src/model/timeline";
import { readReport } from "../src/report/read";
import { example, type Json } from "./fixtures";

const report = readReport(example());

/** A small generator with a seed, so that a failure can be repeated. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 4294967296;
    return state / 4294967296;
  };
}

describe("diff", () => {
  it("shows the changed lines and the changed part of each", () => {
    const lines = diffLines("a\nz.mul_(2)  # c\nb", "a\nz = z.mul(2)  # c\nb");
    expect(lines.map((line) => [line.kind, line.text])).toEqual([
      ["removed", "z.mul_(2)  # c"],
      ["added", "z = z.mul(2)  # c"],
    ]);
    expect(lines[0]?.line).toBe(2);
  });

  it("rebuilds both texts, whatever they are", () => {
    const next = random(5);
    for (let round = 0; round < 300; round += 1) {
      const make = (): string =>
        Array.from({ length: Math.floor(next() * 7) }, () => "abc"[Math.floor(next() * 3)] ?? "").join("\n");
      const [before, after] = [make(), make()];
      if (before === after) {
        expect(diffLines(before, after, 1000)).toEqual([]);
        continue;
      }
      const lines = diffLines(before, after, 1000);
      const side = (kind: string): string =>
        lines
          .filter((line) => line.kind === "same" || line.kind === kind)
          .map((line) => line.text)
          .join("\n");
      expect([side("removed"), side("added")]).toEqual([before, after]);
      const { start, end, text } = changedRange(before, after);
      expect(before.slice(0, start) + text + before.slice(end)).toBe(after);
    }
  });

  it("marks where lines are left out", () => {
    const lines = diffLines("a\n1\n2\n3\nb", "A\n1\n2\n3\nB");
    expect(lines.map((line) => line.kind)).toEqual(["removed", "added", "gap", "removed", "added"]);
  });
});

describe("source", () => {
  const at = (line: number, text: string, column: number): Parameters<typeof findInLine>[1] => ({
    file: "In[1]",
    line,
    column,
    end_line: line,
    end_column: null,
    text,
    line_text: text,
    function: "",
    cell_line: line,
  });

  it("takes the occurrence that the column names, in bytes or in characters", () => {
    expect(findInLine("h.mul_(2); h.mul_(2)", at(1, "h.mul_(2)", 11))).toEqual({ start: 11, end: 20 });
    // "é" is two bytes: the column of the second call is 13 in bytes and 12 in characters.
    expect(findInLine("é.mul_(2); é.mul_(2)", at(1, "é.mul_(2)", 12))).toEqual({ start: 11, end: 20 });
  });

  it("finds every site of the example in its cell", () => {
    for (const mutation of report.mutations) {
      const site = mutation.site;
      if (site === null) throw new Error("no site");
      const range = findInCell(report.cell?.source ?? "", site);
      expect(report.cell?.source.slice(range?.start, range?.end)).toBe(site.text);
    }
  });

  it("marks the calling line where the code stands elsewhere", () => {
    const site = { ...at(31, "y.mul_(2)", 4), file: "block.py", line_text: "y.mul_(2)", cell_line: 2 };
    const range = findInCell("a\n  net(x)\nb", site);
    expect("a\n  net(x)\nb".slice(range?.start, range?.end)).toBe("net(x)");
  });

  it("finds an expression over several lines", () => {
    const source = "z = f(\n    x,\n)\n";
    const site = { ...at(1, "f(\n    x,\n)", 4), line_text: "z = f(" };
    const range = findInCell(source, site);
    expect(source.slice(range?.start, range?.end)).toBe("f(\n    x,\n)");
  });

  it("cuts a line into tokens that together are the line", () => {
    const line = "def f(a, b='x # y'): return a + 1.5e-3  # note";
    expect(
      tokens(line)
        .map((token) => token.text)
        .join(""),
    ).toBe(line);
    const kinds = new Map(tokens(line).map((token) => [token.text, token.kind]));
    expect(kinds.get("'x # y'")).toBe("string");
    expect(kinds.get("# note")).toBe("comment");
    expect(kinds.get("def")).toBe("keyword");
    expect(kinds.get("1.5e-3")).toBe("number");
  });
});

describe("timeline", () => {
  const timeline = layOut(report);

  it("has a lane per tensor, the hurt one first", () => {
    expect(timeline.lanes.map((lane) => lane.name)).toEqual(["z", "trunk.weight"]);
    expect(timeline.lanes[0]?.hot).toBe(true);
  });

  it("keeps program order along every lane", () => {
    for (const lane of timeline.lanes) {
      const xs = lane.marks.map((mark) => mark.x);
      expect(xs).toEqual([...xs].sort((a, b) => a - b));
    }
  });

  it("stands what one line does in one column", () => {
    const line5 = timeline.marks.filter((mark) => mark.event.site?.line === 5);
    expect(new Set(line5.map((mark) => Math.floor(mark.x))).size).toBe(1);
    expect(timeline.columns.map((column) => column.line)).toEqual([4, 5, 7, 8, 9, 9]);
  });

  it("gives each task of one backward call one band", () => {
    expect(timeline.bands.map((band) => band.task)).toEqual(["seg", "depth"]);
    const reads = timeline.marks.filter((mark) => mark.event.kind === "read");
    for (const mark of reads) {
      const band = timeline.bands.find((item) => item.task === mark.event.task);
      expect(mark.x).toBeGreaterThan(band?.from ?? Infinity);
      expect(mark.x).toBeLessThan(band?.to ?? -Infinity);
    }
  });

  it("joins the write to what it destroyed", () => {
    expect(timeline.links.map((link) => [link.write.event.seq, link.save.event.seq])).toEqual([[3, 1]]);
  });

  it("numbers the versions along the lane, hot from the harmful write on", () => {
    expect(timeline.lanes[0]?.segments.map((part) => [part.version, part.hot])).toEqual([
      [0, false],
      [1, true],
    ]);
  });

  it("folds many lanes by their variable and shows the hurt ones", () => {
    const data = example();
    const many = Array.from({ length: 40 }, (_, i) => ({
      ...(data["timeline"] as Json[])[2],
      tensor: `model.layers.${i}.weight`,
    }));
    data["timeline"] = [...(data["timeline"] as Json[]), ...many];
    const large = layOut(readReport(data));
    expect(rows(large, new Set()).map((lane) => [lane.name, lane.size, lane.role])).toEqual([
      ["z", 1, "lane"],
      ["trunk.weight", 1, "lane"],
      ["model", 40, "folded"],
    ]);
    expect(rows(large, new Set(["model"]))).toHaveLength(43);
  });

  it("folds near marks, loses none and keeps a hot one in sight", () => {
    const next = random(11);
    const lane = timeline.lanes[0];
    if (lane === undefined) throw new Error("no lane");
    const template = lane.marks[0];
    if (template === undefined) throw new Error("no mark");
    for (let round = 0; round < 100; round += 1) {
      const marks = Array.from({ length: 60 }, (_, id) => ({
        ...template,
        id,
        x: next() * 30,
        hot: next() < 0.1,
      })).sort((a, b) => a.x - b.x);
      const glyphs = fold(marks, 1.5, 0, 30);
      expect(glyphs.flatMap((glyph) => glyph.marks)).toEqual(marks);
      for (const glyph of glyphs) {
        expect(glyph.hotCount).toBe(glyph.marks.filter((mark) => mark.hot).length);
        expect(glyph.hot).toBe(glyph.hotCount > 0);
      }
    }
  });

  it("zooms about a point and stays on the axis", () => {
    const next = random(3);
    let window = { from: 0, to: 100 };
    for (let i = 0; i < 500; i += 1) {
      const at = window.from + next() * (window.to - window.from);
      const before = (at - window.from) / (window.to - window.from);
      const zoomed = zoom(window, 0.3 + next() * 2, at, 100);
      const inside = zoomed.from > 1e-9 && zoomed.to < 100 - 1e-9;
      if (inside) expect((at - zoomed.from) / (zoomed.to - zoomed.from)).toBeCloseTo(before, 6);
      window = pan(zoomed, (next() - 0.5) * 40, 100);
      expect(window.from).toBeGreaterThanOrEqual(-1e-9);
      expect(window.to).toBeLessThanOrEqual(100 + 1e-9);
      expect(window.to - window.from).toBeGreaterThanOrEqual(2 - 1e-9);
    }
  });
});

describe("table", () => {
  it("puts the worst leaves first and sorts by any column", () => {
    const table = buildTable(report);
    expect(table.tasks).toEqual(["seg", "depth"]);
    expect(table.rows.map((row) => row.leaf)).toEqual([
      "trunk.weight",
      "heads.seg.weight",
      "heads.depth.weight",
    ]);
    expect(sortRows(table.rows, { by: "leaf", key: "", down: false }).map((row) => row.leaf)).toEqual([
      "heads.depth.weight",
      "heads.seg.weight",
      "trunk.weight",
    ]);
    expect(sortRows(table.rows, { by: "task", key: "depth", down: true })[0]?.leaf).toBe("trunk.weight");
  });

  it("filters by words", () => {
    const { rows: all } = buildTable(report);
    expect(filterRows(all, "HEADS weight").map((row) => row.leaf)).toEqual([
      "heads.seg.weight",
      "heads.depth.weight",
    ]);
    expect(filterRows(all, "nothing")).toEqual([]);
  });
});

describe("selection", () => {
  it("opens on the worst write and goes round", () => {
    expect(initial(report).mutation).toBe(0);
    expect(step(report, initial(report), 1).mutation).toBe(0);
  });

  it("blames a write for a gradient", () => {
    const row = report.gradients[0];
    if (row === undefined) throw new Error("no row");
    expect(ofGradient(row, report)).toMatchObject({ mutation: 0, task: "seg", leaf: "trunk.weight" });
  });

  it("lights up the write, what it destroyed and who reads that", () => {
    const lit = report.timeline.filter((event, i) => touchesEvent(initial(report), event, i, report));
    expect(lit.map((event) => event.seq)).toEqual([1, 3, 7]);
  });
});
