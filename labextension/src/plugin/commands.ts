// The commands of the palette, the Edit menu, the shortcuts and the cell toolbar.

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { Notification, type ICommandPalette } from "@jupyterlab/apputils";
import type { CodeCell } from "@jupyterlab/cells";
import type { INotebookTracker } from "@jupyterlab/notebook";
import { LabIcon } from "@jupyterlab/ui-components";

import { tell } from "../host/protocol";
import { harmful } from "../model/selection";
import { around, sourceOf, type Place } from "./cells";
import { watchAll } from "./kernel";
import { isWatched } from "./magicLine";
import { reportIn, refreshMarks } from "./marks";
import type { Requests } from "./requests";
import { toggle, warn, watchAndRun, type Tools } from "./watching";

export const COMMANDS = {
  watchCell: "jupyter-inplace:watch-cell",
  watchAll: "jupyter-inplace:watch-all",
  applyFirst: "jupyter-inplace:apply-first-fix",
  next: "jupyter-inplace:next-mutation",
  previous: "jupyter-inplace:previous-mutation",
  clear: "jupyter-inplace:clear-marks",
} as const;

// An eye whose pupil is the write.
const ICON = new LabIcon({
  name: "jupyter-inplace:eye",
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16"><path class="jp-icon3" fill="#616161" ' +
    'd="M8 3C4.4 3 1.7 5.8.6 8c1.1 2.2 3.8 5 7.4 5s6.3-2.8 7.4-5C14.3 5.8 11.6 3 8 3zm0 8.6C5.3 11.6 3.2 9.7 ' +
    '2.2 8 3.2 6.3 5.3 4.4 8 4.4S12.8 6.3 13.8 8c-1 1.7-3.1 3.6-5.8 3.6z"/><circle ' +
    'class="jp-icon3" fill="#616161" cx="8" cy="8" r="2.4"/></svg>',
});

export interface CommandHost {
  tracker: INotebookTracker;
  tools: Tools;
  requests: Requests;
  palette: ICommandPalette | null;
  toolbar: () => boolean;
  options: () => string;
  marks: { shown: () => boolean; show: (on: boolean) => void };
}

/** Kernels in which every following cell is watched, by id. */
const watchingAll = new Set<string>();

export function addCommands(app: JupyterFrontEnd, host: CommandHost): void {
  const { tracker, tools } = host;
  const { trans } = tools;
  const here = (): Place | null => {
    const panel = tracker.currentWidget;
    const cell = panel?.content.activeCell;
    return panel !== null && cell?.model.type === "code" ? { panel, cell: cell as CodeCell } : null;
  };
  const kernelId = (): string => tracker.currentWidget?.sessionContext.session?.kernel?.id ?? "";

  app.commands.addCommand(COMMANDS.watchCell, {
    label: trans.__("Watch In-place Writes of This Cell"),
    caption: trans.__(
      "Watch the in-place writes of this cell (puts the magic autograd_watch on it or takes it off)",
    ),
    icon: ICON,
    describedBy: { args: { type: "object", properties: {} } },
    isEnabled: () => here() !== null,
    isVisible: () => here() !== null && host.toolbar(),
    isToggled: () => {
      const place = here();
      return place !== null && isWatched(sourceOf(place.cell));
    },
    execute: () => {
      const place = here();
      if (place !== null) toggle(place, host.options(), tools);
      app.commands.notifyCommandChanged(COMMANDS.watchCell);
    },
  });

  app.commands.addCommand(COMMANDS.watchAll, {
    label: trans.__("Watch In-place Writes of All Following Cells"),
    isEnabled: () => kernelId() !== "",
    isToggled: () => watchingAll.has(kernelId()),
    execute: async () => {
      const panel = tracker.currentWidget;
      if (panel === null) return;
      const id = kernelId();
      const on = !watchingAll.has(id);
      const failed = await watchAll(panel.sessionContext, on);
      if (failed !== null) {
        warn(trans.__("The kernel could not do it: %1", failed));
        return;
      }
      if (on) watchingAll.add(id);
      else watchingAll.delete(id);
      Notification.info(
        on ? trans.__("Every following cell is watched.") : trans.__("Cells are no longer watched."),
        { autoClose: 4000 },
      );
      app.commands.notifyCommandChanged(COMMANDS.watchAll);
    },
  });

  app.commands.addCommand(COMMANDS.applyFirst, {
    label: trans.__("Apply the First Proved Rewrite"),
    isEnabled: () => here() !== null,
    execute: async () => {
      const place = here();
      const report = place === null ? null : reportIn(place.cell.model);
      const proved = report?.fixes.filter((item) => item.verification.status === "passed") ?? [];
      const fix = proved.find((item) => item.reading === null);
      if (fix === undefined && proved.length > 0) {
        warn(trans.__("The rewrites of this cell mean different mathematics: choose one in its panel."));
        return;
      }
      if (place === null || report === null || fix === undefined) {
        warn(trans.__("This cell has no proved rewrite."));
        return;
      }
      await host.requests.apply(place, report, fix, false);
    },
  });

  const step = (by: 1 | -1): void => {
    const panel = tracker.currentWidget;
    const cells = panel?.content.widgets ?? [];
    const active = panel?.content.activeCellIndex ?? 0;
    for (let i = 0; i < cells.length; i += 1) {
      const index = (active + by * i + cells.length) % cells.length;
      const cell = cells[index];
      if (cell?.model.type !== "code") continue;
      const report = reportIn((cell as CodeCell).model);
      const view = cell.node.querySelector('[data-ji="panel"]');
      if (report === null || view === null || harmful(report).length === 0) continue;
      if (panel !== null) panel.content.activeCellIndex = index;
      tell(view, { step: by });
      return;
    }
    Notification.info(trans.__("No harmful write in this notebook."), { autoClose: 4000 });
  };
  app.commands.addCommand(COMMANDS.next, {
    label: trans.__("Next In-place Write"),
    isEnabled: () => tracker.currentWidget !== null,
    execute: () => {
      step(1);
    },
  });
  app.commands.addCommand(COMMANDS.previous, {
    label: trans.__("Previous In-place Write"),
    isEnabled: () => tracker.currentWidget !== null,
    execute: () => {
      step(-1);
    },
  });
  app.commands.addCommand(COMMANDS.clear, {
    label: () =>
      host.marks.shown()
        ? trans.__("Clear the Marks in the Editors")
        : trans.__("Show the Marks in the Editors"),
    execute: () => {
      host.marks.show(!host.marks.shown());
      refreshMarks();
      app.commands.notifyCommandChanged(COMMANDS.clear);
    },
  });

  const category = trans.__("In-place Writes");
  for (const command of Object.values(COMMANDS)) host.palette?.addItem({ command, category });
}

/** Watches the cell in whose output `element` stands. */
export function watchAround(element: Element, host: CommandHost): void {
  const place = around(host.tracker, element);
  if (place !== null) void watchAndRun(place, host.options(), host.tools);
}
