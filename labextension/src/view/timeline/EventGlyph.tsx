import type { JSX } from "preact";

import { leader, type Glyph } from "../../model/glyphs";
import type { Scale } from "../../model/scale";
import { touchesEvent } from "../../model/selection";
import { visible } from "../../report/words";
import { usePanel } from "../context";
import { middle, type LaneRow } from "./laneRows";
import { Sign, spoken } from "./signs";
import type { TipText } from "./Tip";

/** One glyph on its lane: a button with a sign. */
export function EventGlyph(props: {
  row: LaneRow;
  glyph: Glyph;
  scale: Scale;
  /** Whether the Tab key comes here: one glyph of the timeline takes it. */
  tabStop: boolean;
  onChoose: () => void;
  onKey: (event: KeyboardEvent) => void;
  onTip: (tip: TipText | null) => void;
}): JSX.Element {
  const { report, trans, selection } = usePanel();
  const { row, glyph, scale, onTip } = props;
  const mark = leader(glyph);
  const label = spoken(glyph, report, trans);
  const x = scale.x(glyph.x);
  const selected = glyph.marks.some((item) => touchesEvent(selection, item.event, item.id, report));
  const show = (): void => {
    onTip({
      x,
      y: middle(row),
      text: `${row.lane.role === "folded" ? "" : `${visible(row.lane.name)}: `}${label}`,
      code: glyph.marks.length > 1 ? "" : visible(mark.event.site?.text ?? ""),
    });
  };
  const hide = (): void => {
    onTip(null);
  };
  return (
    <g
      class="ji-event"
      transform={`translate(${x.toFixed(1)} 0)`}
      role="button"
      tabindex={props.tabStop ? 0 : -1}
      aria-label={`${visible(row.lane.name)}: ${label}`}
      aria-pressed={selected}
      data-ji="event"
      data-ji-id={mark.id}
      data-ji-kind={mark.event.kind}
      data-ji-count={glyph.marks.length}
      data-ji-hot={glyph.hot}
      data-ji-selected={selected}
      onClick={props.onChoose}
      onKeyDown={props.onKey}
      onMouseEnter={show}
      onMouseLeave={hide}
      onFocus={show}
      onBlur={hide}
    >
      <circle r={11} class="ji-halo" />
      <Sign glyph={glyph} />
    </g>
  );
}
