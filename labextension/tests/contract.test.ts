// The contract as Python writes it, and as the view holds it.

import { describe, expect, it } from "vitest";

import * as contract from "../src/report/contract";
import { readReport, severity } from "../src/report/read";
import type { Verdict } from "../src/report/types";
import { english, kindName } from "../src/report/words";
import { readingName } from "../src/view/fixes/words";
import { statusWord } from "../src/view/gradients/words";
import { tone } from "../src/view/Verdict";
import { verdictWord } from "../src/view/writes/words";
import type { Json } from "./fixtures";
import sample from "./contract.sample.json";

const report = readReport(sample);

describe("the contract", () => {
  // The sample has a value of its own in every field, and every word.
  it("is read field by field", () => {
    const fixes = report.fixes.map((fix, i) => ({
      ...fix,
      verification: { ...fix.verification, status: sample.fixes[i]!.verification.status },
    }));
    // A conflict's id is its position: the JSON has none.
    const numbered = { ...sample, conflicts: sample.conflicts.map((item, id) => ({ ...item, id })) };
    expect(numbered).toMatchObject({ ...report, fixes });
  });

  it("is read whole: what the view leaves out stands here", () => {
    const unread: string[] = [];
    const compare = (json: object, view: object, path: string): void => {
      for (const [name, value] of Object.entries(json) as [string, unknown][]) {
        const held = (view as Json)[name];
        if (held === undefined) unread.push(`${path}${name}`);
        else if (typeof value === "object" && value !== null) {
          const [one, other] = Array.isArray(value)
            ? [value[0] as unknown, (held as unknown[])[0]]
            : [value, held];
          if (typeof one === "object" && one !== null) compare(one, other as object, `${path}${name}.`);
        }
      }
    };
    compare(sample, report, "");
    expect(unread).toEqual(["format", "version", "fixes.diff", "fixes.verification.pending"]);
  });

  it.each(contract.VERDICTS)("keeps the verdict %s", (verdict) => {
    const read = readReport({ ...sample, verdict });
    expect(read.verdict).toBe(verdict);
    expect(verdictWord({ ...report.mutations[0]!, verdict, pending: false }, english)).toBe(verdict);
  });

  it("ranks the verdicts as Python does", () => {
    const worstFirst = [...contract.VERDICTS].sort((a, b) => severity(b) - severity(a));
    expect(worstFirst).toEqual([...contract.VERDICTS]);
    expect(severity("harmless")).toBe(0);
  });

  it("shows a word that has no place in the view, and never as fine", () => {
    const word = "new-word" as never;
    expect(tone(word)).toBe("warning");
    expect(verdictWord({ ...report.mutations[0]!, verdict: word, pending: false }, english)).toBe(word);
    expect(statusWord(word, english)).toBe(word);
    expect(kindName(word, english)).toBe(word);
    expect(readingName(word, english)).toBe(word);
    const fine = contract.VERDICTS.filter((verdict: Verdict) => tone(verdict) === "fine");
    expect(fine).toEqual(["harmless"]);
  });
});
