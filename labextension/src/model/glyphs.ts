// Marks that stand too close to be told apart become one glyph.

import type { Mark } from "./timeline";

/** One glyph: a single mark, or a count of the marks that stand too close to be told apart. */
export interface Glyph {
  x: number;
  marks: Mark[];
  hot: boolean;
  /** How many of the marks are hot. */
  hotCount: number;
}

/**
 * Folds marks (sorted by `x`) that are nearer than `room` units. A hot mark is never hidden behind a cool one:
 * a glyph that holds one is hot, and stands where it stands.
 */
export function fold(marks: readonly Mark[], room: number, from: number, to: number): Glyph[] {
  const glyphs: Glyph[] = [];
  let last: Glyph | undefined;
  for (let i = lowerBound(marks, from); i < marks.length; i += 1) {
    const mark = marks[i];
    if (mark === undefined || mark.x > to) break;
    if (last !== undefined && mark.x - last.x < room) {
      last.marks.push(mark);
      if (mark.hot) {
        if (!last.hot) last.x = mark.x;
        last.hot = true;
        last.hotCount += 1;
      }
    } else {
      last = { x: mark.x, marks: [mark], hot: mark.hot, hotCount: Number(mark.hot) };
      glyphs.push(last);
    }
  }
  return glyphs;
}

/** Folds with the room that the counts themselves need. */
export function foldReadably(marks: readonly Mark[], pixel: number, from: number, to: number): Glyph[] {
  let glyphs = fold(marks, ROOM * pixel, from, to);
  const longest = Math.max(1, ...glyphs.map((glyph) => glyph.marks.length));
  if (longest > 1) glyphs = fold(marks, (ROOM + 7 + 6 * String(longest).length) * pixel, from, to);
  return glyphs;
}

/** Pixels that a sign needs to itself. */
const ROOM = 17;

function lowerBound(marks: readonly Mark[], x: number): number {
  let low = 0;
  let high = marks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((marks[middle]?.x ?? 0) < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The mutation that made the marks of a glyph worth showing: the first hot one, else the first. */
export function leader(glyph: Glyph): Mark {
  const hot = glyph.marks.filter((mark) => mark.hot);
  const found = hot.find((mark) => mark.event.kind === "write") ?? hot[0] ?? glyph.marks[0];
  if (found === undefined) throw new Error("A glyph without marks.");
  return found;
}
