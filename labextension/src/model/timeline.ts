// From a report's events to lanes, columns and bands on an abstract axis ("units"): one unit is the room of
// one glyph. Program order goes left to right; what one source line does stands in one column.

import type { Conflict, Mutation, Report, Site, TimelineEvent } from "../report/types";
import { isHarmful } from "./selection";

export interface Mark {
  /** Position in the report's timeline; stands in `data-ji-id`. */
  id: number;
  event: TimelineEvent;
  /** Centre, in units. */
  x: number;
  /** A harmful write, a save that it destroyed, or a read of such a save. */
  hot: boolean;
}

export interface Segment {
  from: number;
  to: number;
  version: number;
  /** Whether a harmful write made this version. */
  hot: boolean;
}

export interface Lane {
  key: string;
  name: string;
  marks: Mark[];
  segments: Segment[];
  hot: boolean;
  /** The tensors of a folded group; 1 for a plain lane. */
  size: number;
  /** The group that this lane unfolds or belongs to. */
  group: string | null;
  role: "lane" | "folded" | "unfolded";
}

export interface Column {
  from: number;
  to: number;
  /** The line of the cell; null where no Python line of the cell is known. */
  line: number | null;
  hot: boolean;
  backward: boolean;
}

export interface Band {
  task: string;
  from: number;
  to: number;
  hot: boolean;
}

export interface Link {
  conflict: Conflict;
  write: Mark;
  save: Mark;
}

export interface Timeline {
  lanes: Lane[];
  columns: Column[];
  bands: Band[];
  links: Link[];
  /** Length of the axis, in units. */
  extent: number;
  marks: Mark[];
}

const NOBODY = "";

function line(event: TimelineEvent): number | null {
  return event.site?.cell_line ?? null;
}

function phase(event: TimelineEvent): string {
  const inBackward = event.kind === "read" || event.kind === "backward";
  return inBackward ? `b:${event.task ?? ""}` : `f:${event.site?.file ?? ""}:${line(event) ?? -1}`;
}

function hotEvents(report: Report): (event: TimelineEvent) => boolean {
  const harmful = new Set(report.mutations.filter(isHarmful).map((mutation) => mutation.id));
  const destroyed = new Set(report.conflicts.filter((c) => harmful.has(c.mutation)).map((c) => c.id));
  return (event) =>
    (event.kind === "write" && event.mutation !== null && harmful.has(event.mutation)) ||
    (event.kind !== "write" && event.conflict !== null && destroyed.has(event.conflict));
}

// One backward call of several tasks interleaves what the tasks read. Each task's part stands together, in the order
// in which the tasks began; everything else keeps its place.
function byTask(timeline: readonly TimelineEvent[]): { event: TimelineEvent; id: number }[] {
  const result: { event: TimelineEvent; id: number }[] = [];
  let call: { event: TimelineEvent; id: number }[] = [];
  let callKey: string | null = null;
  const flush = (): void => {
    const order = new Map<string, number>();
    for (const { event } of call) {
      const task = event.task ?? NOBODY;
      if (!order.has(task)) order.set(task, order.size);
    }
    const rank = (event: TimelineEvent): number => order.get(event.task ?? NOBODY) ?? 0;
    result.push(...call.sort((a, b) => rank(a.event) - rank(b.event) || a.id - b.id));
    call = [];
  };
  timeline.forEach((event, id) => {
    const key = phase(event).startsWith("b:") ? `${event.site?.file ?? ""}:${line(event) ?? -1}` : null;
    if (key !== callKey) flush();
    callKey = key;
    if (key === null) result.push({ event, id });
    else call.push({ event, id });
  });
  flush();
  return result;
}

/** Lays the whole report out. Linear in the number of events. */
export function layOut(report: Report): Timeline {
  const isHot = hotEvents(report);
  const columns: Column[] = [];
  const bands: Band[] = [];
  const marks: Mark[] = [];
  const lanes = new Map<string, Lane>();
  let current: Column | undefined;
  let currentPhase = "";
  let inColumn = new Map<string, number>();

  for (const { event, id } of byTask(report.timeline)) {
    const eventPhase = phase(event);
    if (current === undefined || eventPhase !== currentPhase) {
      const from = current?.to ?? 0;
      const backward = eventPhase.startsWith("b:");
      current = { from, to: from + 1, line: line(event), hot: false, backward };
      columns.push(current);
      currentPhase = eventPhase;
      inColumn = new Map();
      if (backward) bands.push({ task: event.task ?? NOBODY, from, to: from + 1, hot: false });
    }
    const hot = isHot(event);
    current.hot ||= hot && event.kind === "write";
    const band = bands.at(-1);
    if (current.backward && band !== undefined) band.hot ||= hot;
    // The call of backward itself touches no tensor: it opens its band.
    if (event.tensor === null && event.kind === "backward") continue;
    const name = event.tensor ?? "?";
    const offset = inColumn.get(name) ?? 0;
    inColumn.set(name, offset + 1);
    current.to = Math.max(current.to, current.from + offset + 1);
    if (current.backward && band !== undefined) band.to = current.to;
    const mark: Mark = { id, event, x: current.from + offset + 0.5, hot };
    marks.push(mark);
    let lane = lanes.get(name);
    if (lane === undefined) {
      lane = { key: name, name, marks: [], segments: [], hot: false, size: 1, group: null, role: "lane" };
      lanes.set(name, lane);
    }
    lane.marks.push(mark);
    lane.hot ||= hot;
  }

  const extent = Math.max(current?.to ?? 1, 1);
  // A refused write changed nothing.
  const harmful = new Set(
    report.mutations.filter((item) => isHarmful(item) && item.verdict !== "rejected").map((item) => item.id),
  );
  for (const lane of lanes.values()) lane.segments = segments(lane.marks, extent, harmful);
  return {
    lanes: [...lanes.values()].sort((a, b) => Number(b.hot) - Number(a.hot)),
    columns,
    bands,
    links: links(report, marks),
    extent,
    marks,
  };
}

function segments(marks: readonly Mark[], extent: number, harmful: ReadonlySet<number>): Segment[] {
  const found: Segment[] = [];
  let open: Segment | undefined;
  for (const { event, x } of marks) {
    if (event.version === null) continue;
    const hot = event.kind === "write" && harmful.has(event.mutation ?? -1);
    // A write that torch did not count makes other values under the same version.
    if (open?.version === event.version && (!hot || open.hot)) continue;
    if (open !== undefined) open.to = x;
    open = { from: x, to: extent, version: event.version, hot: hot || (open?.hot ?? false) };
    found.push(open);
  }
  return found;
}

function links(report: Report, marks: readonly Mark[]): Link[] {
  const writes = new Map<number, Mark>();
  const saves = new Map<number, Mark>();
  for (const mark of marks) {
    const { event } = mark;
    if (event.kind === "write" && event.mutation !== null && !writes.has(event.mutation)) {
      writes.set(event.mutation, mark);
    }
    if (event.kind === "save" && event.conflict !== null && !saves.has(event.conflict)) {
      saves.set(event.conflict, mark);
    }
  }
  // A save event names no conflict where one event stands for several saved tensors: then tensor and place tell.
  const places = new Map<string, Mark>();
  for (const mark of marks) {
    const key = placeKey(mark.event.tensor, mark.event.site);
    if (mark.event.kind === "save" && !places.has(key)) places.set(key, mark);
  }
  const found: Link[] = [];
  for (const conflict of report.conflicts) {
    const write = writes.get(conflict.mutation);
    const save = saves.get(conflict.id) ?? places.get(placeKey(conflict.tensor, conflict.saved_site));
    if (write !== undefined && save !== undefined) found.push({ conflict, write, save });
  }
  return found;
}

function placeKey(tensor: string | null, site: Site | null): string {
  return `${tensor ?? ""}@${site?.file ?? ""}:${site?.line ?? 0}:${site?.column ?? 0}`;
}

const PLAIN_LANES = 8;

function groupOf(lane: Lane): string {
  if (/^t\d+$/.test(lane.name)) return "·unnamed";
  const root = /^[^.[]+/.exec(lane.name)?.[0] ?? lane.name;
  return root === lane.name ? "·others" : root;
}

/** The rows to draw: hurt lanes always, the others folded by the variable that holds them, where they are many. */
export function rows(timeline: Timeline, unfolded: ReadonlySet<string>): Lane[] {
  if (timeline.lanes.length <= PLAIN_LANES) return timeline.lanes;
  const shown = timeline.lanes.filter((lane) => lane.hot);
  const groups = new Map<string, Lane[]>();
  for (const lane of timeline.lanes) {
    if (lane.hot) continue;
    const name = groupOf(lane);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [lane]);
    else group.push(lane);
  }
  for (const [name, lanes] of groups) {
    const [only] = lanes;
    if (lanes.length === 1 && only !== undefined) {
      shown.push(only);
      continue;
    }
    const open = unfolded.has(name);
    shown.push({
      key: `group:${name}`,
      name,
      marks: open ? [] : lanes.flatMap((lane) => lane.marks).sort((a, b) => a.x - b.x || a.id - b.id),
      segments: [],
      hot: false,
      size: lanes.length,
      group: name,
      role: open ? "unfolded" : "folded",
    });
    if (open) shown.push(...lanes.map((lane) => ({ ...lane, group: name })));
  }
  return shown;
}

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

/** A window on the axis, in units. */
export interface Window {
  from: number;
  to: number;
}

const SMALLEST_WINDOW = 2;

/** The window zoomed by `factor` (below 1: nearer) about the unit `at`, kept on the axis. */
export function zoom(window: Window, factor: number, at: number, extent: number): Window {
  const size = window.to - window.from;
  const wanted = Math.min(extent, Math.max(Math.min(SMALLEST_WINDOW, extent), size * factor));
  const share = size === 0 ? 0.5 : (at - window.from) / size;
  return keep({ from: at - wanted * share, to: at - wanted * share + wanted }, extent);
}

/** The window moved by `units`, kept on the axis. */
export function pan(window: Window, units: number, extent: number): Window {
  return keep({ from: window.from + units, to: window.to + units }, extent);
}

function keep(window: Window, extent: number): Window {
  const size = Math.min(window.to - window.from, extent);
  const from = Math.min(Math.max(window.from, 0), extent - size);
  return { from, to: from + size };
}

/** The mutation that made the marks of a glyph worth showing: the first hot one, else the first. */
export function leader(glyph: Glyph): Mark {
  const hot = glyph.marks.filter((mark) => mark.hot);
  const found = hot.find((mark) => mark.event.kind === "write") ?? hot[0] ?? glyph.marks[0];
  if (found === undefined) throw new Error("A glyph without marks.");
  return found;
}

export function mutationOf(event: TimelineEvent, report: Report): Mutation | null {
  const id = event.mutation ?? report.conflicts.find((c) => c.id === event.conflict)?.mutation ?? null;
  return report.mutations.find((mutation) => mutation.id === id) ?? null;
}
