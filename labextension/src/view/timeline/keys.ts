// The keys of a focused glyph: arrows walk from glyph to glyph, Enter chooses, + - 0 zoom.

import type { Glyph } from "../../model/glyphs";
import type { LaneRow } from "./laneRows";
import type { WindowControl } from "./useWindow";

export interface Walk {
  rows: readonly LaneRow[];
  control: WindowControl;
  focusOn: (row: LaneRow, glyph: Glyph) => void;
  choose: (glyph: Glyph) => void;
}

/** Does what the key says; other keys go on to whoever else listens. */
export function onKey(event: KeyboardEvent, row: LaneRow, glyph: Glyph, walk: Walk): void {
  const { control, focusOn } = walk;
  const first = row.glyphs[0];
  const last = row.glyphs.at(-1);
  switch (event.key) {
    case "ArrowRight":
      beside(1, row, glyph, walk);
      break;
    case "ArrowLeft":
      beside(-1, row, glyph, walk);
      break;
    case "ArrowDown":
      across(1, row, glyph, walk);
      break;
    case "ArrowUp":
      across(-1, row, glyph, walk);
      break;
    case "Home":
      if (first !== undefined) focusOn(row, first);
      break;
    case "End":
      if (last !== undefined) focusOn(row, last);
      break;
    case "Enter":
    case " ":
      focusOn(row, glyph);
      walk.choose(glyph);
      break;
    case "+":
    case "=":
      control.zoomBy(0.5, glyph.x);
      break;
    case "-":
      control.zoomBy(2, glyph.x);
      break;
    case "0":
      control.fit();
      break;
    default:
      return;
  }
  event.preventDefault();
  event.stopPropagation();
}

/** To the next glyph of the lane; the window follows. */
function beside(by: 1 | -1, row: LaneRow, glyph: Glyph, { control, focusOn }: Walk): void {
  const { from, to } = control.window;
  const next = row.glyphs[row.glyphs.indexOf(glyph) + by];
  const inView = next !== undefined && next.x >= from && next.x <= to;
  if (!inView && control.zoomed) control.panBy(by * (to - from) * 0.5);
  if (next !== undefined) focusOn(row, next);
}

/** To the nearest glyph of the next lane that has one. */
function across(by: 1 | -1, row: LaneRow, glyph: Glyph, { rows, focusOn }: Walk): void {
  let at = rows.indexOf(row) + by;
  while (rows[at]?.glyphs.length === 0) at += by;
  const other = rows[at];
  const nearest = other?.glyphs.reduce((a, b) => (Math.abs(b.x - glyph.x) < Math.abs(a.x - glyph.x) ? b : a));
  if (other !== undefined && nearest !== undefined) focusOn(other, nearest);
}
