// How the panel talks to what it stands in. It dispatches a cancelable, bubbling event from its own element;
// whoever can do what it asks calls `preventDefault()` and puts a promise into `detail.answer`. Nobody did: there
// is no extension, and the panel falls back. State comes back as events on the panel's element.

import type { Fix, Report } from "../report/types";
import type { Selection } from "../model/selection";

export const REQUEST = "jupyter-inplace";
export const STATE = "jupyter-inplace-state";

export interface Outcome {
  ok: boolean;
  /** One sentence for the person; may be empty. */
  message: string;
  /** The answer to `sources`. */
  sources?: Sources;
}

/** Lines of files outside of the cell, which a saved report does not carry: by `FILE:LINE`. */
export type Sources = Readonly<Record<string, { text: string; line_text: string }>>;

export type Request =
  /** A panel came into being, or shows another report: tell it the state. */
  | { action: "hello"; report: Report }
  | { action: "apply"; report: Report; fix: Fix; run: boolean }
  | { action: "undo"; report: Report; fix: Fix }
  | { action: "select"; report: Report; selection: Selection }
  | { action: "sources"; report: Report };

export interface RequestDetail {
  request: Request;
  /** Set by who answers. */
  answer?: Promise<Outcome>;
}

/** What the host tells a panel; absent fields keep their value. */
export interface HostState {
  /** The cell differs from the report's: marks are gone, applying is refused. */
  stale?: boolean;
  /** Whether the output is trusted: only then may the panel run code. */
  trusted?: boolean;
  /** Whether the host can run the cell. */
  canRun?: boolean;
  /** The host's text equals this fix's source: it has been applied. */
  applied?: number | null;
  /** A selection made elsewhere (the editor, a command). */
  selection?: Selection;
  /** Go to the next (1) or previous (-1) harmful write. */
  step?: 1 | -1;
}

/** Asks whoever listens; null where nobody does. */
export function ask(element: Element, request: Request): Promise<Outcome> | null {
  const detail: RequestDetail = { request };
  const event = new CustomEvent<RequestDetail>(REQUEST, {
    bubbles: true,
    cancelable: true,
    composed: true,
    detail,
  });
  const unanswered = element.dispatchEvent(event);
  return unanswered ? null : (detail.answer ?? Promise.resolve({ ok: true, message: "" }));
}

export function tell(element: Element, state: HostState): void {
  element.dispatchEvent(new CustomEvent<HostState>(STATE, { detail: state }));
}
