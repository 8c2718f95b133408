// From a report's events to lanes, columns and bands on an abstract axis ("units"): one unit is the room of
// one glyph. Program order goes left to right; what one source line does stands in one column.

import type { Conflict, Report, Site, TimelineEvent } from "../report/types";
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
