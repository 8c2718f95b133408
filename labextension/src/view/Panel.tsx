import type { JSX } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";

import { ask, STATE, type HostState, type Outcome, type Sources } from "../host/protocol";
import { initial, NOTHING, step, type Selection } from "../model/selection";
import type { Fix, Report } from "../report/types";
import type { Trans } from "../report/words";
import { visible } from "../report/words";
import { Context, usePanel, type PanelContext } from "./context";
import { Fixes } from "./fixes/Fixes";
import { Gradients } from "./gradients/Gradients";
import { followTheme } from "./theme";
import { TimelineView } from "./timeline/TimelineView";
import { Verdict } from "./Verdict";
import { Writes } from "./writes/Writes";

export interface PanelProps {
  report: Report;
  trans: Trans;
  trusted: boolean;
  /** A selection that the host asks for; `turn` tells a new request from a redraw. */
  asked: { selection: Partial<Selection>; turn: number } | null;
  fallback?: (fix: Fix, report: Report) => Promise<Outcome>;
  onSelect?: (selection: Selection) => void;
  /** Asks the kernel for the lines of other files, where no extension does. */
  askKernel?: () => Promise<Outcome>;
}

const COLOURS = 8;

/** The whole panel. It keeps its selection while proofs of the same run arrive. */
export function Panel({
  report,
  trans,
  trusted,
  asked,
  fallback,
  onSelect,
  askKernel,
}: PanelProps): JSX.Element {
  const root = useRef<HTMLDivElement>(null);
  const [selection, setSelection] = useState<Selection>(() => initial(report));
  const [host, setHost] = useState<HostState>({ canRun: false, stale: false, applied: null });
  const [sources, setSources] = useState<Sources>({});
  const quiet = ["mixes", "harmless"].includes(report.verdict);
  const [open, setOpen] = useState(!quiet);

  // Another run, not another proof of this one: begin anew.
  const run = `${report.cell?.id ?? ""}/${report.cell?.execution_count ?? ""}/${report.cell?.source ?? ""}`;
  const lastRun = useRef(run);
  if (lastRun.current !== run) {
    lastRun.current = run;
    setSelection(initial(report));
    setSources({});
    setOpen(!quiet);
  }

  useEffect(() => (root.current === null ? undefined : followTheme(root.current)), []);
  const stepBy = useRef<(by: 1 | -1) => void>(() => undefined);
  stepBy.current = (by) => {
    select(step(report, selection, by));
  };
  useEffect(() => {
    const element = root.current;
    if (element === null) return undefined;
    const onState = (event: Event): void => {
      const { selection: chosen, step: by, ...state } = (event as CustomEvent<HostState>).detail;
      if (Object.keys(state).length > 0) setHost((known) => ({ ...known, ...state }));
      if (chosen !== undefined) setSelection(chosen);
      if (by !== undefined) stepBy.current(by);
    };
    element.addEventListener(STATE, onState);
    return () => {
      element.removeEventListener(STATE, onState);
    };
  }, []);
  useEffect(() => {
    if (root.current !== null) void ask(root.current, { action: "hello", report });
  }, [report]);
  useEffect(() => (root.current === null ? undefined : keepKeys(root.current)), []);
  useEffect(() => {
    if (asked !== null) setSelection({ ...NOTHING, ...asked.selection });
  }, [asked?.turn]);

  const select = useCallback(
    (chosen: Selection): void => {
      setSelection(chosen);
      onSelect?.(chosen);
      if (root.current !== null) void ask(root.current, { action: "select", report, selection: chosen });
    },
    [report, onSelect],
  );
  const colours = useMemo(() => new Map(report.tasks.map((task, i) => [task.name, i % COLOURS])), [report]);

  const canAsk = askKernel !== undefined || host.canRun === true;
  const context: PanelContext = {
    report,
    sources,
    askSources: canAsk
      ? async () => {
          const answer =
            (root.current === null ? null : ask(root.current, { action: "sources", report })) ??
            askKernel?.();
          const outcome = (await answer) ?? { ok: false, message: "" };
          if (outcome.sources !== undefined) setSources(outcome.sources);
          return outcome;
        }
      : null,
    trans,
    selection,
    select,
    host: { ...host, trusted: host.trusted ?? trusted },
    taskColour: (task) => colours.get(task) ?? 0,
    async apply(fix, andRun) {
      const answer =
        root.current === null ? null : ask(root.current, { action: "apply", report, fix, run: andRun });
      if (answer !== null) return answer;
      if (fallback !== undefined) return fallback(fix, report);
      return { ok: false, message: trans.__("Nothing here can change the cell.") };
    },
    undo(fix) {
      const answer = root.current === null ? null : ask(root.current, { action: "undo", report, fix });
      return answer ?? Promise.resolve({ ok: false, message: "" });
    },
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "F8" || !event.shiftKey) return;
    event.preventDefault();
    select(step(report, selection, event.altKey ? -1 : 1));
  };

  return (
    <Context.Provider value={context}>
      <div
        ref={root}
        class="ji-panel"
        data-ji="panel"
        data-ji-verdict={report.verdict}
        data-ji-stale={host.stale === true}
        role="region"
        aria-label={trans.__("In-place writes of the cell")}
        onKeyDown={onKeyDown}
      >
        <Verdict
          quiet={quiet}
          open={open}
          onToggle={() => {
            setOpen(!open);
          }}
        />
        {open && (
          <>
            <TimelineView />
            <Writes />
            <Gradients />
            <Fixes />
            <BlindSpots />
          </>
        )}
      </div>
    </Context.Provider>
  );
}

function BlindSpots(): JSX.Element | null {
  const { report, trans } = usePanel();
  if (report.blind_spots.length === 0) return null;
  return (
    <section class="ji-section ji-blind" data-ji="blind-spots">
      <h3>{trans.__("Not seen")}</h3>
      <ul>
        {report.blind_spots.map((spot, i) => (
          <li key={i}>{visible(spot)}</li>
        ))}
      </ul>
    </section>
  );
}

// JupyterLab takes keys before the page does, single letters in command mode among them: "x" cuts the cell. Inside of
// the panel plain keys are the panel's; combinations with Ctrl or Cmd (save, undo) stay JupyterLab's. Its bindings match
// the focused element itself, so that is where the attribute has to stand.
function keepKeys(panel: HTMLElement): () => void {
  const ATTRIBUTE = "data-lm-suppress-shortcuts";
  const onKey = (event: KeyboardEvent): void => {
    const { target } = event;
    if (!(target instanceof Element) || !panel.contains(target)) return;
    if (event.ctrlKey || event.metaKey) target.removeAttribute(ATTRIBUTE);
    else target.setAttribute(ATTRIBUTE, "true");
  };
  window.addEventListener("keydown", onKey, true);
  return () => {
    window.removeEventListener("keydown", onKey, true);
  };
}
