import { createContext } from "preact";
import { useContext } from "preact/hooks";

import type { HostState, Outcome, Sources } from "../host/protocol";
import type { Selection } from "../model/selection";
import type { Fix, Report } from "../report/types";
import type { Trans } from "../report/words";

/** What every part of the panel sees. */
export interface PanelContext {
  report: Report;
  trans: Trans;
  selection: Selection;
  select: (selection: Selection) => void;
  host: HostState;
  apply: (fix: Fix, run: boolean) => Promise<Outcome>;
  undo: (fix: Fix) => Promise<Outcome>;
  /** Lines of other files, as the kernel told them. */
  sources: Sources;
  /** Asks the kernel for them; null where there is nobody to ask. */
  askSources: (() => Promise<Outcome>) | null;
  /** One of the palette's colours for a task, the same everywhere: 0 to 7. */
  taskColour: (task: string) => number;
}

export const Context = createContext<PanelContext | null>(null);

export function usePanel(): PanelContext {
  const context = useContext(Context);
  if (context === null) throw new Error("A part of the panel stands outside of it.");
  return context;
}
