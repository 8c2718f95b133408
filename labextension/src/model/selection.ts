// What is selected, and what belongs to it. A selection is made anywhere (timeline, source, table, fixes,
// editor) and seen everywhere.

import { severity } from "../report/read";
import type { Conflict, Fix, Gradient, Mutation, Report, TimelineEvent } from "../report/types";

export interface Selection {
  mutation: number | null;
  conflict: number | null;
  task: string | null;
  leaf: string | null;
  /** Position in the report's timeline. */
  event: number | null;
  fix: number | null;
}

export const NOTHING: Selection = {
  mutation: null,
  conflict: null,
  task: null,
  leaf: null,
  event: null,
  fix: null,
};

/** Whether the write deserves a mark: everything but `harmless`. */
export function isHarmful(mutation: Mutation): boolean {
  return severity(mutation.verdict) > 0;
}

/** Harmful writes first come, first served; the worst verdict first. */
export function harmful(report: Report): Mutation[] {
  return report.mutations.filter(isHarmful).sort((a, b) => severity(b.verdict) - severity(a.verdict));
}

/** What is selected on opening: the worst write. */
export function initial(report: Report): Selection {
  return { ...NOTHING, mutation: harmful(report)[0]?.id ?? null };
}

export function ofMutation(id: number): Selection {
  return { ...NOTHING, mutation: id };
}

export function ofConflict(conflict: Conflict): Selection {
  return { ...NOTHING, mutation: conflict.mutation, conflict: conflict.id };
}

export function ofEvent(event: TimelineEvent, index: number, report: Report): Selection {
  const conflict = event.kind === "write" ? undefined : report.conflicts.find((c) => c.id === event.conflict);
  return {
    ...NOTHING,
    event: index,
    mutation: event.mutation ?? conflict?.mutation ?? null,
    conflict: conflict?.id ?? null,
    task: event.task,
  };
}

/** The write that an event is, or that destroyed what it saved or read. */
export function mutationOf(event: TimelineEvent, report: Report): Mutation | null {
  const id = event.mutation ?? report.conflicts.find((c) => c.id === event.conflict)?.mutation ?? null;
  return report.mutations.find((mutation) => mutation.id === id) ?? null;
}

/** A gradient row, and the first write that is to blame for it. */
export function ofGradient(row: Gradient, report: Report): Selection {
  const blamed =
    row.status === "ok"
      ? undefined
      : report.mutations.find(
          (mutation) =>
            isHarmful(mutation) && mutation.tasks.includes(row.task) && mutation.leaves.includes(row.leaf),
        );
  return { ...NOTHING, task: row.task, leaf: row.leaf, mutation: blamed?.id ?? null };
}

export function ofFix(fix: Fix): Selection {
  return { ...NOTHING, fix: fix.id, mutation: fix.mutations[0] ?? null };
}

/** The next (1) or previous (-1) harmful write after the selected one, going round. */
export function step(report: Report, selection: Selection, by: 1 | -1): Selection {
  const order = report.mutations.filter(isHarmful);
  if (order.length === 0) return selection;
  const at = order.findIndex((mutation) => mutation.id === selection.mutation);
  const next = order[(at + by + order.length) % order.length] ?? order[0];
  return next === undefined ? selection : ofMutation(next.id);
}

/** Whether an event of the timeline belongs to the selection. */
export function touchesEvent(
  selection: Selection,
  event: TimelineEvent,
  index: number,
  report: Report,
): boolean {
  if (selection.event !== null && selection.mutation === null) return selection.event === index;
  if (selection.mutation !== null) {
    if (event.kind === "write") return event.mutation === selection.mutation;
    if (event.conflict === null) return false;
    if (selection.conflict !== null) return event.conflict === selection.conflict;
    return report.conflicts.some((c) => c.id === event.conflict && c.mutation === selection.mutation);
  }
  if (selection.task !== null) return event.task === selection.task;
  return false;
}

/** Whether a gradient row belongs to the selection. */
export function touchesGradient(selection: Selection, row: Gradient, report: Report): boolean {
  if (selection.leaf !== null) return row.leaf === selection.leaf && row.task === selection.task;
  const cause =
    selection.conflict !== null
      ? report.conflicts.find((c) => c.id === selection.conflict)
      : report.mutations.find((mutation) => mutation.id === selection.mutation);
  if (cause !== undefined && selection.mutation !== null) {
    return row.status !== "ok" && cause.tasks.includes(row.task) && cause.leaves.includes(row.leaf);
  }
  return selection.task !== null && row.task === selection.task;
}
