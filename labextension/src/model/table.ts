// The gradient table: one row per leaf, one column per task, and the tasks' cosines beside them.

import type { Gradient, GradientStatus, Report, TaskCosine } from "../report/types";

export interface Row {
  leaf: string;
  cells: Map<string, Gradient>;
  cosines: Map<string, TaskCosine>;
  /** The worst status of the row. */
  status: GradientStatus;
  worst: number;
}

export interface Table {
  tasks: string[];
  pairs: [string, string][];
  rows: Row[];
}

/** `null`: as the report has them, the hurt ones first. */
export type Order = { by: "leaf" | "task" | "pair"; key: string; down: boolean } | null;

/** How bad a status is; those with no name here stand between the bad ones and `ok`. */
function rank(status: GradientStatus): number {
  switch (status) {
    case "raises":
      return 3;
    case "wrong":
    case "lost":
      return 2;
    case "ok":
      return 0;
    default:
      return 1;
  }
}

export function pairKey(tasks: readonly [string, string]): string {
  return `${tasks[0]}\u0000${tasks[1]}`;
}

export function buildTable(report: Report): Table {
  const rows = new Map<string, Row>();
  const tasks = new Set(report.tasks.map((task) => task.name));
  const pairs = new Map<string, [string, string]>();
  const rowOf = (leaf: string): Row => {
    let row = rows.get(leaf);
    if (row === undefined) {
      row = { leaf, cells: new Map(), cosines: new Map(), status: "ok", worst: 0 };
      rows.set(leaf, row);
    }
    return row;
  };
  for (const item of report.gradients) {
    const row = rowOf(item.leaf);
    // Folded loops may give several occurrences: the report's worst one is the one that counts.
    const known = row.cells.get(item.task);
    if (known === undefined || weight(item) > weight(known)) row.cells.set(item.task, item);
    tasks.add(item.task);
    if (rank(item.status) > rank(row.status)) row.status = item.status;
    row.worst = Math.max(row.worst, weight(item));
  }
  for (const item of report.task_cosines) {
    rowOf(item.leaf).cosines.set(pairKey(item.tasks), item);
    pairs.set(pairKey(item.tasks), item.tasks);
  }
  const used = new Set(report.gradients.map((item) => item.task));
  return {
    tasks: [...tasks].filter((name) => used.has(name)),
    pairs: [...pairs.values()],
    rows: [...rows.values()].sort((a, b) => Math.sign(b.worst - a.worst)),
  };
}

/** How bad a row is: status first, then the relative difference. */
export function weight(item: Gradient): number {
  return rank(item.status) * 1e6 + Math.min(item.relative_difference ?? 0, 1e5);
}

export function sortRows(rows: readonly Row[], order: Order): Row[] {
  if (order === null) return [...rows];
  const sign = order.down ? -1 : 1;
  const value = (row: Row): number | string => {
    if (order.by === "leaf") return row.leaf;
    if (order.by === "task") {
      const cell = row.cells.get(order.key);
      return cell === undefined ? -1 : weight(cell);
    }
    const pair = row.cosines.get(order.key);
    return pair?.as_run ?? pair?.reference ?? 2;
  };
  return [...rows].sort((a, b) => {
    const left = value(a);
    const right = value(b);
    if (typeof left === "string" && typeof right === "string") {
      return sign * left.localeCompare(right, undefined, { numeric: true });
    }
    return sign * (Number(left) - Number(right));
  });
}

/** Leaves whose name holds every word of the filter. */
export function filterRows(rows: readonly Row[], filter: string): Row[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => words.every((word) => row.leaf.toLowerCase().includes(word)));
}

/** Shade of a cell between 0 and 1: the relative difference, or full where there is no gradient at all. */
export function shade(item: Gradient): number {
  if (item.status === "ok") return 0;
  if (item.status === "raises" || item.relative_difference === null) return 1;
  return Math.min(1, 0.25 + 0.75 * Math.min(1, item.relative_difference));
}
