// Finds the cell that a panel speaks of, and changes its source as one undoable step.

import type { Cell, CodeCell } from "@jupyterlab/cells";
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";

import { changedRange } from "../model/diff";
import type { Report } from "../report/types";

export interface Place {
  panel: NotebookPanel;
  cell: CodeCell;
}

function isCode(cell: Cell | undefined): cell is CodeCell {
  return cell?.model.type === "code";
}

export function sourceOf(cell: Cell): string {
  return cell.model.sharedModel.getSource();
}

/** Two texts of a cell are the same up to newlines at their end, which notebooks and kernels treat freely. */
export function sameSource(a: string, b: string): boolean {
  return a.trimEnd() === b.trimEnd();
}

/** The notebook and the cell in whose output (or editor) `element` stands. */
export function around(tracker: INotebookTracker, element: Element): Place | null {
  const panel = tracker.find((item) => item.node.contains(element));
  const cell = panel?.content.widgets.find((item) => item.node.contains(element));
  return panel !== undefined && isCode(cell) ? { panel, cell } : null;
}

/**
 * The cell that `report` is about, seen from a panel's element: the cell around the panel where the source agrees,
 * else the one with the report's id in the same notebook (a panel composed into another cell's output). Never a cell
 * of another notebook: copies of a notebook share their ids.
 */
export function cellOf(tracker: INotebookTracker, element: Element, report: Report): Place | null {
  const panel = tracker.find((item) => item.node.contains(element));
  if (panel === undefined) return null;
  const here = around(tracker, element);
  const source = report.cell?.source;
  if (source === undefined) return here;
  const known = (place: Place | null): boolean =>
    place !== null &&
    (sameSource(sourceOf(place.cell), source) ||
      report.fixes.some((fix) => sameSource(sourceOf(place.cell), fix.source)));
  if (known(here)) return here;
  const id = report.cell?.id;
  const byId = panel.content.widgets.find((item) => item.model.id === id);
  const named = isCode(byId) ? { panel, cell: byId } : null;
  return known(named) ? named : (here ?? named);
}

/** Replaces the source by `text`, changing only what differs, as one step of undo that merges with no other. */
export function rewrite(cell: Cell, text: string): void {
  const shared = cell.model.sharedModel;
  const before = shared.getSource();
  // Newlines at the end stay as the person has them.
  const after = text.trimEnd() + (/\s*$/.exec(before)?.[0] ?? "");
  if (after === before) return;
  const change = changedRange(before, after);
  const { undoManager } = shared as unknown as { undoManager?: { stopCapturing: () => void } | null };
  undoManager?.stopCapturing();
  shared.transact(() => {
    shared.updateSource(change.start, change.end, change.text);
  });
  undoManager?.stopCapturing();
}
