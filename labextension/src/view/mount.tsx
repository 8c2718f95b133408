// Draws a report into an element of any host, and keeps it drawn while the report changes.

import { render } from "preact";

import { readReport, ReportError } from "../report/read";
import type { Report } from "../report/types";
import { english, type Trans } from "../report/words";
import type { Selection } from "../model/selection";
import { ask, type Outcome } from "../host/protocol";
import type { Fix } from "../report/types";
import { Panel } from "./Panel";
import css from "./style.css";

export interface PanelOptions {
  trans?: Trans;
  /** What Apply does where no extension answers. */
  fallback?: (fix: Fix, report: Report) => Promise<Outcome>;
  onSelect?: (selection: Selection) => void;
  /** Asks the kernel for lines of other files, where no extension does. */
  askKernel?: () => Promise<Outcome>;
  /** Whether the output is trusted: only then may the panel run code. */
  trusted?: boolean;
}

export interface PanelHandle {
  update(data: unknown, options?: Pick<PanelOptions, "trusted">): void;
  select(selection: Partial<Selection>): void;
  /** Tells the host again that the panel is there: the first time it may not have stood in the page. */
  greet(): void;
  dispose(): void;
}

const STYLE_ID = "jupyter-inplace-style";

function addStyle(element: HTMLElement): void {
  const root = element.getRootNode();
  const home = root instanceof ShadowRoot ? root : document.head;
  if (home.querySelector(`#${STYLE_ID}`) !== null) return;
  const style = document.createElement("style");
  style.id = STYLE_ID;
  style.textContent = css;
  home.appendChild(style);
}

/** Draws `data` (a report as JSON) into `element`; an unreadable one is said in one sentence. */
export function mount(element: HTMLElement, data: unknown, options: PanelOptions = {}): PanelHandle {
  let asked: { selection: Partial<Selection>; turn: number } | null = null;
  let turn = 0;
  let latest = data;
  let trusted = options.trusted ?? true;
  const draw = (): void => {
    let report: Report;
    try {
      report = readReport(latest);
    } catch (error) {
      if (!(error instanceof ReportError)) throw error;
      render(
        <div class="ji-panel ji-unreadable" data-ji="panel" role="note">
          {error.message}
        </div>,
        element,
      );
      return;
    }
    render(
      <Panel
        report={report}
        trans={options.trans ?? english}
        trusted={trusted}
        asked={asked}
        {...(options.fallback === undefined ? {} : { fallback: options.fallback })}
        {...(options.onSelect === undefined ? {} : { onSelect: options.onSelect })}
        {...(options.askKernel === undefined ? {} : { askKernel: options.askKernel })}
      />,
      element,
    );
  };
  // The style goes where the element will stand; it may not stand anywhere yet.
  addStyle(element);
  requestAnimationFrame(() => {
    addStyle(element);
  });
  draw();
  return {
    update(next, changed) {
      latest = next;
      trusted = changed?.trusted ?? trusted;
      draw();
    },
    select(selection) {
      turn += 1;
      asked = { selection, turn };
      draw();
    },
    greet() {
      const panel = element.querySelector('[data-ji="panel"]');
      addStyle(element);
      if (panel === null) return;
      try {
        void ask(panel, { action: "hello", report: readReport(latest) });
      } catch (error) {
        if (!(error instanceof ReportError)) throw error;
      }
    },
    dispose() {
      render(null, element);
    },
  };
}
