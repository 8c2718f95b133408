import type { JSX } from "preact";

/** What a glyph under the pointer, or with the focus, says. */
export interface TipText {
  /** In the plot. */
  x: number;
  y: number;
  text: string;
  code: string;
}

/** @param left,top where the plot begins. */
export function Tip(props: { tip: TipText; width: number; left: number; top: number }): JSX.Element {
  const { tip, width, left, top } = props;
  return (
    <div
      class="ji-tip"
      role="tooltip"
      data-ji-side={tip.x > width * 0.6 ? "left" : "right"}
      style={{ left: `${left + tip.x}px`, top: `${top + tip.y}px` }}
    >
      {tip.code !== "" && <code>{tip.code}</code>}
      <span>{tip.text}</span>
    </div>
  );
}
