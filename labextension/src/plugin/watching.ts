// Putting the magic on a cell and taking it off, with the extension loaded in the kernel: nobody has to know `%load_ext`.

import { Notification, type ISessionContextDialogs } from "@jupyterlab/apputils";
import { NotebookActions } from "@jupyterlab/notebook";
import type { ITranslator } from "@jupyterlab/translation";

import type { Trans } from "../report/words";
import { rewrite, sourceOf, type Place } from "./cells";
import { hasKernel, load } from "./kernel";
import { canWatch, isWatched, unwatched, watched } from "./magicLine";

export interface Tools {
  trans: Trans;
  translator: ITranslator;
  dialogs: ISessionContextDialogs | undefined;
}

const LONGEST = 160;

function short(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

export function warn(message: string): void {
  Notification.warning(message, { autoClose: 8000 });
}

/** Loads the extension in the kernel of the place; a failure is said. */
export async function ensureLoaded(place: Place, tools: Tools): Promise<boolean> {
  const { trans } = tools;
  const { sessionContext } = place.panel;
  if (!hasKernel(sessionContext)) {
    warn(trans.__("There is no kernel to watch the cell in."));
    return false;
  }
  const failed = await load(sessionContext);
  if (failed === null) return true;
  warn(
    failed.includes("No module named 'jupyter_inplace'")
      ? trans.__("jupyter_inplace is not installed in this notebook's kernel; pip install jupyter-inplace")
      : trans.__("The kernel could not load jupyter_inplace: %1", short(failed)),
  );
  return false;
}

/** Runs the cell; a watched one finds its magic, in a fresh kernel too. */
export async function run(place: Place, tools: Tools): Promise<boolean> {
  const { panel, cell } = place;
  // Where loading fails, the run's own error tells.
  if (isWatched(sourceOf(cell)) && hasKernel(panel.sessionContext)) await load(panel.sessionContext);
  return NotebookActions.runCells(
    panel.content,
    [cell],
    panel.sessionContext,
    tools.dialogs,
    tools.translator,
  );
}

/** Puts `%%autograd_watch` on the cell and runs it, the extension loaded first. */
export async function watchAndRun(place: Place, options: string, tools: Tools): Promise<void> {
  if (!(await ensureLoaded(place, tools))) return;
  rewrite(place.cell, watched(sourceOf(place.cell), options));
  await run(place, tools);
}

const NOT_LOADED =
  /UsageError: (Cell|Line) magic function `%%?autograd_watch` not found|Cell magic `%%autograd_watch` not found/;

/** Where a watched cell failed in a fresh kernel for want of the magic, offers to load it and run again. */
export function offerLoading(place: Place, tools: Tools): void {
  const { trans } = tools;
  const { outputs } = place.cell.model;
  for (let i = 0; i < outputs.length; i += 1) {
    const { text } = outputs.get(i).toJSON() as { text?: unknown };
    const said = Array.isArray(text) ? text.join("") : text;
    if (typeof said !== "string" || !NOT_LOADED.test(said)) continue;
    Notification.warning(trans.__("This kernel has not loaded jupyter_inplace."), {
      autoClose: false,
      actions: [
        {
          label: trans.__("Load it and run the cell"),
          displayType: "accent",
          callback: () => {
            void ensureLoaded(place, tools).then((loaded) => (loaded ? run(place, tools) : false));
          },
        },
      ],
    });
    return;
  }
}

/** Puts the magic on the cell, or takes it off. */
export function toggle(place: Place, options: string, tools: Tools): void {
  const source = sourceOf(place.cell);
  if (isWatched(source)) {
    rewrite(place.cell, unwatched(source));
    return;
  }
  if (!canWatch(source)) {
    warn(tools.trans.__("This cell belongs to another cell magic and cannot be watched."));
    return;
  }
  rewrite(place.cell, watched(source, options));
  if (hasKernel(place.panel.sessionContext)) void ensureLoaded(place, tools);
}
