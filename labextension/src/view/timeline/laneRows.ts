// Where each lane stands in the plot, and which glyphs of it can be seen.

import { foldReadably, type Glyph } from "../../model/glyphs";
import { withMargins, type Scale } from "../../model/scale";
import type { Lane } from "../../model/timeline";

/** Height of a lane, and of one with room for the links below it. */
export const PLAIN = 30;
export const WITH_LINKS = 54;
const TOP = 18;
/** The plot scrolls where it is taller. */
export const TALLEST = 400;
/** Beyond the edge of what is scrolled into view, lanes are drawn all the same. */
const BEYOND = 60;

export interface PlacedLane {
  lane: Lane;
  y: number;
  height: number;
}

export interface LaneRow extends PlacedLane {
  glyphs: Glyph[];
}

/** The lanes one below the other; `linked` are the names of those that links begin at. */
export function placeLanes(lanes: readonly Lane[], linked: ReadonlySet<string | null>): PlacedLane[] {
  let y = TOP;
  return lanes.map((lane) => {
    const placed = { lane, y, height: linked.has(lane.name) ? WITH_LINKS : PLAIN };
    y += placed.height;
    return placed;
  });
}

export function heightOf(placed: readonly PlacedLane[]): number {
  const last = placed.at(-1);
  return last === undefined ? 0 : last.y + last.height;
}

/** The lanes in view when the plot is scrolled down by `scrolled` pixels, with their glyphs. */
export function rowsInView(placed: readonly PlacedLane[], scrolled: number, scale: Scale): LaneRow[] {
  const { from, to } = withMargins(scale);
  return placed
    .filter((row) => row.y + row.height >= scrolled - BEYOND && row.y <= scrolled + TALLEST + BEYOND)
    .map((row) => ({ ...row, glyphs: foldReadably(row.lane.marks, 1 / scale.perUnit, from, to) }));
}

/** Where a lane's line is; NaN where there is no such lane. */
export function middle(row: PlacedLane | undefined): number {
  return row === undefined ? NaN : row.y + PLAIN / 2;
}
