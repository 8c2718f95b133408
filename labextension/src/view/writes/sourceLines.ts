// The lines of source that a write and what it overwrote stand in.

import type { Sources } from "../../host/protocol";
import { inThisCell } from "../../model/source";
import type { Conflict, Mutation, Report, Site } from "../../report/types";
import { place, type Trans } from "../../report/words";
import { rangeOf, type Underline } from "../rich";
import { savedNote, writeNote } from "./words";

export interface SourceLine {
  site: Site;
  text: string;
  label: string;
  order: number;
  marks: Underline[];
  notes: { text: string; conflict: Conflict | null }[];
  isWrite: boolean;
}

/** The lines that matter, in the order of the source, each once. */
export function sourceLines(
  mutation: Mutation,
  conflicts: readonly Conflict[],
  report: Report,
  trans: Trans,
  sources: Sources,
  add: (conflict: Conflict | null) => { active: boolean; onPick: () => void },
): SourceLine[] {
  const lines = new Map<string, SourceLine>();
  const lineOf = (site: Site): SourceLine => {
    const own = inThisCell(site, report);
    const key = `${site.file}:${site.line}`;
    let line = lines.get(key);
    if (line === undefined) {
      const text = own
        ? (report.cell?.source.split("\n")[site.line - 1] ?? site.line_text)
        : site.line_text || site.text;
      line = {
        site,
        text: text.replace(/^\s+/, (indent) => (own ? indent : "")),
        label: own ? String(site.line) : place(site, trans),
        order: (site.cell_line ?? 1e6) + site.line / 1e6,
        marks: [],
        notes: [],
        isWrite: false,
      };
      lines.set(key, line);
    }
    return line;
  };
  for (const conflict of conflicts) {
    if (conflict.saved_site === null) continue;
    const site = told(conflict.saved_site, sources);
    const line = lineOf(site);
    const label = savedNote(conflict, trans);
    line.marks.push({ ...rangeOf(line.text, site), kind: "save", label, ...add(conflict) });
    line.notes.push({ text: label, conflict });
  }
  if (mutation.site !== null) {
    const site = told(mutation.site, sources);
    const line = lineOf(site);
    line.isWrite = true;
    const label = writeNote(mutation, trans);
    line.marks.push({ ...rangeOf(line.text, site), kind: "write", label, ...add(null) });
    line.notes.push({ text: label, conflict: null });
  }
  const shown = [...lines.values()].sort((a, b) => a.order - b.order);
  return dedent(shown);
}

// Lines of a deep block move left together.
function dedent(lines: SourceLine[]): SourceLine[] {
  const indent = Math.min(...lines.map((line) => line.text.length - line.text.trimStart().length));
  if (indent === 0 || !Number.isFinite(indent)) return lines;
  return lines.map((line) => ({
    ...line,
    text: line.text.slice(indent),
    marks: line.marks.map((mark) => ({ ...mark, start: mark.start - indent, end: mark.end - indent })),
  }));
}

/** The site with the text that the kernel told, where the report itself may not carry it. */
export function told(site: Site, sources: Sources): Site {
  const known = sources[`${site.file}:${site.line}`];
  return known === undefined || site.text !== "" ? site : { ...site, ...known };
}
