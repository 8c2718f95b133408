import { describe, expect, it } from "vitest";

import { readReport, ReportError } from "../src/report/read";
import { bytes, cosine, english, number, opName, percent, visible } from "../src/report/words";
import { example } from "./fixtures";

describe("readReport", () => {
  it("keeps what the contract says", () => {
    const report = readReport(example());
    expect(report.verdict).toBe("breaks");
    expect(report.mutations.map((m) => m.versions)).toEqual([
      [0, 1],
      [0, 1],
    ]);
    expect(report.conflicts[0]).toMatchObject({ id: 0, node: "TanhBackward0", saved_version: 0 });
    expect(report.fixes.map((fix) => fix.verification.status)).toEqual(["passed", "failed"]);
  });

  it("refuses another format in one sentence", () => {
    expect(() => readReport({ hello: 1 })).toThrow(ReportError);
    expect(() => readReport(null)).toThrow("This output is not a jupyter_inplace report.");
    expect(() => readReport({ ...example(), version: 2 })).toThrow("This report has version 2");
  });

  it("survives any value in any field", () => {
    const wrong: unknown[] = [null, 3, "x", [], {}, [null], [[1]], true, NaN];
    for (const key of Object.keys(example()).filter((name) => name !== "format" && name !== "version")) {
      for (const value of wrong) expect(() => readReport({ ...example(), [key]: value })).not.toThrow();
    }
    const report = readReport({
      ...example(),
      verdict: "<b>",
      mutations: [{ verdict: 7, versions: [1], tasks: [3, "a"] }],
    });
    expect(report.verdict).toBe("unknown");
    expect(report.mutations[0]).toMatchObject({
      verdict: "unknown",
      versions: null,
      tasks: ["a"],
      site: null,
    });
  });

  it("takes a pending proof as one under way", () => {
    const data = example();
    (data["fixes"] as { verification: object }[])[0]!.verification = { status: "unverified", pending: true };
    expect(readReport(data).fixes[0]?.verification.status).toBe("proving");
  });

  it("puts the timeline into program order", () => {
    const data = example();
    data["timeline"] = [...(data["timeline"] as unknown[])].reverse();
    expect(readReport(data).timeline.map((event) => event.seq)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });
});

describe("words", () => {
  it.each([
    [0, "0"],
    [null, "–"],
    [0.20508, "0.205"],
    [-0.5, "−0.5"],
    [1234.56, "1235"],
    [1e-9, "1.0e−9"],
    [123456, "1.2e5"],
    [2, "2"],
    [100, "100"],
  ])("number(%s) is %s", (value, text) => {
    expect(number(value)).toBe(text);
  });

  it("writes cosines with two decimals and no negative zero", () => {
    expect(cosine(-0.574)).toBe("−0.57");
    expect(cosine(-0.001)).toBe("0.00");
    expect(cosine(1)).toBe("1.00");
  });

  it("never says that a difference is none", () => {
    expect(percent(0.5)).toBe("50 %");
    expect(percent(0.063)).toBe("6.3 %");
    expect(percent(1e-6)).toBe("1.0e−6");
    expect(percent(0)).toBe("0 %");
    expect(percent(25)).toBe("25×");
  });

  it("writes sizes and names of operations", () => {
    expect(bytes(80)).toBe("80 B");
    expect(bytes(32768)).toBe("32 KiB");
    expect(bytes(1.5 * 1024 ** 3)).toBe("1.5 GiB");
    expect(opName("aten.mul_.Tensor")).toBe("mul_");
    expect(opName("Adam.step")).toBe("Adam.step");
    expect(opName("external")).toBe("external");
  });

  it("shows what would be invisible or reorder the text", () => {
    expect(visible("a\u202eb")).toBe("a\\u202eb");
    expect(visible("tab\tand é stay\n")).toBe("tab\tand é stay\n");
  });

  it("fills translations", () => {
    expect(english.__("%1 of %2", 1, 3)).toBe("1 of 3");
    expect(english._n("%1 leaf", "%1 leaves", 1)).toBe("1 leaf");
    expect(english._n("%1 leaf", "%1 leaves", 4)).toBe("4 leaves");
  });
});
