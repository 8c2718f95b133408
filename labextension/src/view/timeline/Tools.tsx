import type { JSX } from "preact";

import { usePanel } from "../context";

/** The buttons that zoom. */
export function Tools(props: {
  zoomed: boolean;
  onZoom: (factor: number) => void;
  onFit: () => void;
}): JSX.Element {
  const { trans } = usePanel();
  return (
    <span class="ji-tools">
      <span class="ji-hint">{trans.__("program order · Ctrl+scroll zooms")}</span>
      <button
        type="button"
        class="ji-tool"
        aria-label={trans.__("Zoom out")}
        onClick={() => {
          props.onZoom(2);
        }}
      >
        −
      </button>
      <button
        type="button"
        class="ji-tool"
        aria-label={trans.__("Zoom in")}
        onClick={() => {
          props.onZoom(0.5);
        }}
      >
        +
      </button>
      <button
        type="button"
        class="ji-tool"
        aria-label={trans.__("Show all")}
        disabled={!props.zoomed}
        onClick={props.onFit}
      >
        ⤢
      </button>
    </span>
  );
}
