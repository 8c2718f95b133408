import type { JSX } from "preact";

import type { EventKind } from "../../report/types";
import { usePanel } from "../context";

/** What the signs mean, of those that stand in the timeline. */
export function Legend(): JSX.Element {
  const { trans, report } = usePanel();
  const has = (kind: EventKind): boolean => report.timeline.some((event) => event.kind === kind);
  const destroyed = report.timeline.some((event) => event.kind === "read" && event.conflict !== null);
  return (
    <p class="ji-legend" aria-hidden="true">
      {has("save") && (
        <span>
          <svg width="14" height="14" viewBox="-8 -8 16 16">
            <path d="M0 -6L6 0L0 6L-6 0z" class="ji-sign-save" />
          </svg>
          {trans.__("saved for backward")}
        </span>
      )}
      {has("write") && (
        <span>
          <svg width="14" height="14" viewBox="-8 -8 16 16">
            <circle r="4" class="ji-sign-write" />
          </svg>
          {trans.__("write")}
        </span>
      )}
      {destroyed && (
        <span>
          <svg width="14" height="14" viewBox="-8 -8 16 16">
            <circle r="6" class="ji-sign-read-hot" />
            <path d="M-3 -3L3 3M-3 3L3 -3" class="ji-sign-cross" />
          </svg>
          {trans.__("read of an overwritten value")}
        </span>
      )}
    </p>
  );
}
