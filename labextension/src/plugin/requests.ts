// Answers what panels ask: apply a rewrite to the right cell, run it, select in the editor.

import { Notification } from "@jupyterlab/apputils";
import type { CodeCell } from "@jupyterlab/cells";
import type { CodeMirrorEditor } from "@jupyterlab/codemirror";
import { NotebookActions, type INotebookTracker } from "@jupyterlab/notebook";

import { REQUEST, tell, type HostState, type Outcome, type RequestDetail } from "../host/protocol";
import type { Selection } from "../model/selection";
import type { Fix, Report } from "../report/types";
import { around, cellOf, rewrite, sameSource, sourceOf, type Place } from "./cells";
import { hasKernel, rewind, sources } from "./kernel";
import { setActive, shownMarks } from "./marks";
import { run, warn, type Tools } from "./watching";

/** Names that one notification can hold. */
const MANY = 4;

export interface Wishes {
  runAfterApply: () => boolean;
}

/** What a panel in a notebook has to know of its cell. */
export function stateOf(place: Place, report: Report): HostState {
  const source = sourceOf(place.cell);
  const changed = report.cell !== null && !sameSource(source, report.cell.source);
  const applied = changed ? report.fixes.find((fix) => sameSource(fix.source, source)) : undefined;
  return { stale: changed, applied: applied?.id ?? null, canRun: hasKernel(place.panel.sessionContext) };
}

/** When the cell's own run, if one is under way, is over. */
async function ended(cell: CodeCell): Promise<void> {
  try {
    await cell.outputArea.future.done;
  } catch {
    // Never run on this page, or its kernel went away: nothing to wait for.
  }
}

export class Requests {
  /** The last report that each panel showed. */
  private readonly reports = new WeakMap<Element, Report>();

  /** The kernel in which each cell last ran: a fresh one has nothing to put back. */
  private readonly ranHere = new WeakMap<object, string | undefined>();

  constructor(
    private readonly tracker: INotebookTracker,
    private readonly tools: Tools,
    private readonly wishes: Wishes,
  ) {}

  /** Listens to every panel of the page, and to what runs. */
  listen(): void {
    NotebookActions.executed.connect((_, { cell }) => {
      const place = around(this.tracker, cell.node);
      if (place !== null) this.ranHere.set(cell.model, place.panel.sessionContext.session?.kernel?.id);
    });
    document.addEventListener(REQUEST, (event) => {
      const { target } = event;
      if (!(target instanceof Element) || !(event instanceof CustomEvent)) return;
      this.answer(target, event as CustomEvent<RequestDetail>);
    });
  }

  private answer(element: Element, event: CustomEvent<RequestDetail>): void {
    const { request } = event.detail;
    const place = cellOf(this.tracker, element, request.report);
    if (place === null) return;
    event.preventDefault();
    switch (request.action) {
      case "hello":
        this.reports.set(element, request.report);
        tell(element, stateOf(place, request.report));
        break;
      case "select":
        this.select(place, request.selection);
        break;
      case "apply":
        event.detail.answer = this.apply(place, request.report, request.fix, request.run);
        break;
      case "sources":
        event.detail.answer = this.sources(place, request.report);
        break;
      case "undo":
        event.detail.answer = this.undo(place, request.fix);
        break;
    }
  }

  /** Tells the panels in an element how their cells are now. */
  refresh(element: Element): void {
    for (const panel of element.querySelectorAll('[data-ji="panel"]')) {
      const report = this.reports.get(panel);
      const place = report === undefined ? null : cellOf(this.tracker, panel, report);
      if (report !== undefined && place !== null) tell(panel, stateOf(place, report));
    }
  }

  /** Applies a fix, and runs the cell where that is wanted. */
  async apply(place: Place, report: Report, fix: Fix, andRun: boolean): Promise<Outcome> {
    const { trans } = this.tools;
    const { cell, panel } = place;
    const before = report.cell?.source;
    if (before === undefined || !sameSource(sourceOf(cell), before)) {
      const message = trans.__("Not applied: the cell was edited since this run. Run it again, then apply.");
      warn(message);
      return { ok: false, message };
    }
    if (cell.model.getMetadata("editable") === false || panel.context.model.readOnly) {
      const message = trans.__("Not applied: this cell cannot be edited.");
      warn(message);
      return { ok: false, message };
    }
    rewrite(cell, fix.source);
    panel.content.activeCellIndex = panel.content.widgets.indexOf(cell);
    panel.content.deselectAll();
    if (!andRun && !this.wishes.runAfterApply()) {
      // In the editor, where Ctrl+Z takes it back.
      panel.content.mode = "edit";
      return { ok: true, message: "" };
    }
    if (!hasKernel(panel.sessionContext)) {
      const message = trans.__("Applied, not run: there is no kernel.");
      warn(message);
      return { ok: false, message };
    }
    const kernel = panel.sessionContext.session?.kernel?.id;
    // The watched run may still be showing its proofs; where it failed, its end aborts what waits behind it.
    await ended(cell);
    const { notRestored, reason } = await rewind(panel.sessionContext, report.cell?.id ?? cell.model.id);
    if (notRestored.length > 0) {
      const names = notRestored.map((item) =>
        item.reason === "" ? item.name : `${item.name} (${item.reason})`,
      );
      const shown = names.slice(0, MANY).join("; ");
      const more = names.length > MANY ? ` ${trans.__("and %1 more", names.length - MANY)}` : "";
      Notification.warning(trans.__("The state was put back before the run, but for: %1", shown + more), {
        autoClose: 20_000,
      });
    } else if (reason !== null && this.ranHere.get(cell.model) === kernel) {
      Notification.info(trans.__("Run without putting the state back: %1.", reason), { autoClose: 8000 });
    }
    await run(place, this.tools);
    return { ok: true, message: trans.__("Applied and run.") };
  }

  private async sources(place: Place, report: Report): Promise<Outcome> {
    const found = await sources(place.panel.sessionContext, report.cell?.id ?? place.cell.model.id);
    return found === null ? { ok: false, message: "" } : { ok: true, message: "", sources: found };
  }

  private undo(place: Place, fix: Fix): Promise<Outcome> {
    const { trans } = this.tools;
    if (!sameSource(sourceOf(place.cell), fix.source)) {
      return Promise.resolve({
        ok: false,
        message: trans.__("The cell was edited since: use Ctrl+Z in it."),
      });
    }
    place.cell.model.sharedModel.undo();
    return Promise.resolve({ ok: true, message: "" });
  }

  /** Shows a panel's selection in the editor of its cell. */
  select(place: Place, selection: Selection): void {
    const editor = place.cell.editor as CodeMirrorEditor | null;
    if (editor === null) return;
    const view = editor.editor;
    view.dispatch({ effects: setActive.of(selection) });
    const mark = shownMarks(view).find(
      (item) =>
        item.selection.mutation === selection.mutation &&
        item.selection.conflict === selection.conflict &&
        selection.mutation !== null,
    );
    if (mark === undefined) return;
    const { top, bottom } = view.coordsAtPos(mark.from) ?? { top: 0, bottom: 0 };
    const frame = place.panel.content.node.getBoundingClientRect();
    // Never away from the panel that is being used: a mark out of sight stays there.
    if (top < frame.top || bottom > frame.bottom) return;
    view.dispatch({ selection: { anchor: mark.from } });
  }
}
