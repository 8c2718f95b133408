// Where an expression stands in a text. Sites carry lines and columns, and the text itself: the text decides,
// since a column may count bytes or characters.

import type { Report, Site } from "../report/types";

export interface Range {
  /** Offsets in characters. */
  start: number;
  end: number;
}

/** The columns of the site's expression within one line; the whole line's text where it is not found. */
export function findInLine(lineText: string, site: Site): Range {
  const [first = ""] = site.text.split("\n");
  const wanted = first.trim();
  const indent = lineText.length - lineText.trimStart().length;
  const whole = { start: indent, end: lineText.trimEnd().length };
  if (wanted === "") return whole;
  const near = site.column === null ? indent : characters(lineText, site.column);
  let best = -1;
  for (let at = lineText.indexOf(wanted); at >= 0; at = lineText.indexOf(wanted, at + 1)) {
    if (best < 0 || Math.abs(at - near) < Math.abs(best - near)) best = at;
  }
  return best < 0 ? whole : { start: best, end: best + wanted.length };
}

// A column counted in UTF-8 bytes, as a count of UTF-16 units.
function characters(lineText: string, column: number): number {
  let seen = 0;
  let at = 0;
  for (const char of lineText) {
    if (seen >= column) break;
    const code = char.codePointAt(0) ?? 0;
    seen += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    at += char.length;
  }
  return at;
}

/** Where the site's expression stands in the whole cell; null where the cell does not hold it. */
export function findInCell(source: string, site: Site): Range | null {
  const line = site.cell_line;
  if (line === null || line < 1) return null;
  const lines = source.split("\n");
  const lineText = lines[line - 1];
  if (lineText === undefined) return null;
  const offset = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  // The cell calls code that stands elsewhere: its whole line is the place.
  if (!standsAt(lineText, site)) {
    const indent = lineText.length - lineText.trimStart().length;
    return { start: offset + indent, end: offset + lineText.trimEnd().length };
  }
  if (site.text.includes("\n")) {
    const at = source.indexOf(site.text, offset);
    if (at >= 0 && at <= offset + lineText.length) return { start: at, end: at + site.text.length };
  }
  const { start, end } = findInLine(lineText, site);
  return { start: offset + start, end: offset + end };
}

function standsAt(lineText: string, site: Site): boolean {
  return site.line_text !== "" && lineText.trim() === (site.line_text.split("\n")[0] ?? "").trim();
}

/** Whether the site's own code stands in the report's cell (not in a file or an earlier cell). */
export function inThisCell(site: Site, report: Report): boolean {
  if (site.cell_line === null || site.cell_line !== site.line || report.cell === null) return false;
  const lineText = report.cell.source.split("\n")[site.line - 1];
  return lineText !== undefined && standsAt(lineText, site);
}

export type TokenKind = "keyword" | "string" | "comment" | "number" | "magic" | "plain";

export interface Token {
  kind: TokenKind;
  text: string;
}

const KEYWORDS =
  "False None True and as assert async await break class continue def del elif else except finally for from " +
  "global if import in is lambda nonlocal not or pass raise return try while with yield";
const TOKEN = new RegExp(
  [
    "(?<comment>#.*)",
    "(?<string>[rbfuRBFU]{0,2}(?:\"(?:[^\"\\\\]|\\\\.)*\"?|'(?:[^'\\\\]|\\\\.)*'?))",
    "(?<number>\\b\\d[\\d_.]*(?:[eE][+-]?\\d+)?\\w*)",
    `(?<keyword>\\b(?:${KEYWORDS.replaceAll(" ", "|")})\\b)`,
    "(?<word>[\\p{L}_][\\p{L}\\p{N}_]*)",
  ].join("|"),
  "gu",
);

/** One line of Python in coloured pieces. Good for a glance, no parser: a string over several lines is plain. */
export function tokens(lineText: string): Token[] {
  if (/^\s*[%!]/.test(lineText)) return [{ kind: "magic", text: lineText }];
  const found: Token[] = [];
  let at = 0;
  for (const match of lineText.matchAll(TOKEN)) {
    if (match.index > at) found.push({ kind: "plain", text: lineText.slice(at, match.index) });
    const kind = (["comment", "string", "number", "keyword"] as const).find(
      (name) => match.groups?.[name] !== undefined,
    );
    found.push({ kind: kind ?? "plain", text: match[0] });
    at = match.index + match[0].length;
  }
  if (at < lineText.length) found.push({ kind: "plain", text: lineText.slice(at) });
  return found;
}
