// How numbers and names are written for people. No meaning is decided here.

import type { FixKind, Mutation, Site } from "./types";

/** Translated text: `%1`, `%2` stand for the arguments. JupyterLab's TranslationBundle has this shape. */
export interface Trans {
  __(msgid: string, ...args: (string | number)[]): string;
  _n(singular: string, plural: string, n: number, ...args: (string | number)[]): string;
}

function fill(msgid: string, args: readonly (string | number)[]): string {
  return msgid.replace(/%(\d)/g, (whole, index: string) => {
    const value = args[Number(index) - 1];
    return value === undefined ? whole : String(value);
  });
}

/** English as it stands, where no translator is at hand. */
export const english: Trans = {
  __: (msgid, ...args) => fill(msgid, args),
  _n: (singular, plural, n, ...args) => fill(n === 1 ? singular : plural, [n, ...args]),
};

const MINUS = "−";

/** Three significant digits, a real minus sign, powers of ten where needed; a dash for null. */
export function number(value: number | null): string {
  if (value === null) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const sign = value < 0 ? MINUS : "";
  if (size >= 1e-3 && size < 1e5) {
    return sign + (size >= 1000 ? String(Math.round(size)) : trim(size.toPrecision(3)));
  }
  return sign + size.toExponential(1).replace("e+", "e").replace("e-", `e${MINUS}`);
}

function trim(digits: string): string {
  return digits.includes(".") ? digits.replace(/0+$/, "").replace(/\.$/, "") : digits;
}

/** A cosine: always signed, two decimals. */
export function cosine(value: number | null): string {
  if (value === null) return "–";
  const digits = Math.abs(value).toFixed(2);
  return (value < 0 && Number(digits) !== 0 ? MINUS : "") + digits;
}

/** 0.123 -> "12 %", rounded so that a difference never reads as none. */
export function percent(value: number | null): string {
  if (value === null) return "–";
  const size = Math.abs(value) * 100;
  if (size === 0) return "0 %";
  if (size < 0.1) return number(value);
  if (size >= 1000) return `${number(value)}×`;
  return `${size < 10 ? trim(size.toFixed(1)) : String(Math.round(size))} %`;
}

/** 80 -> "80 B", 32768 -> "32 KiB". */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || Number.isInteger(size) ? String(Math.round(size)) : size.toFixed(1)} ${units[unit] ?? ""}`;
}

/** Groups of three digits, with a thin space. */
export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** "aten.mul_.Tensor" -> "mul_"; "Adam.step" stays. */
export function opName(op: string): string {
  const parts = op.split(".");
  if (parts.length > 1 && parts[0] !== undefined && /^[a-z]/.test(parts[0]) && !op.includes("::")) {
    return parts[1] ?? op;
  }
  return op;
}

/** "float32[64, 128]". */
export function tensorType(mutation: Mutation): string {
  return `${mutation.dtype ?? ""}[${mutation.shape.join(", ")}]`;
}

export function versionStep(versions: readonly [number, number] | null): string {
  if (versions === null) return "";
  return `v${versions[0]} → v${versions[1]}`;
}

/** "line 7" in a cell, "block.py:31" elsewhere. */
export function place(site: Site | null, trans: Trans): string {
  if (site === null) return trans.__("no Python line");
  if (isInCell(site)) return trans.__("line %1", site.line);
  const file = site.file.split(/[\\/]/).pop() ?? site.file;
  return `${file}:${site.line}`;
}

/** Whether the site stands in the text of a cell, this one or (by name `In[n]`) an earlier one. */
export function isInCell(site: Site): boolean {
  return /^(In\s?\[|<ipython|<cell)/.test(site.file);
}

export function kindName(kind: FixKind, trans: Trans): string {
  switch (kind) {
    case "clone":
      return trans.__("clone");
    case "out_of_place":
      return trans.__("out of place");
    case "no_grad":
      return trans.__("under no_grad");
    case "reorder":
      return trans.__("other order");
    case "preserve":
      return trans.__("preserve saved values");
    default:
      return kind;
  }
}

// Controls, bidirectional overrides, zero-width characters and line separators: a report must not be able to
// show one text and apply another, so they are made visible.
// eslint-disable-next-line no-control-regex
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** `text` with every invisible or reordering character written out as an escape. */
export function visible(text: string): string {
  return text.replace(INVISIBLE, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
