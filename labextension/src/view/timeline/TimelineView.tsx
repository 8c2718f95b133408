import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { leader, type Glyph } from "../../model/glyphs";
import { rows } from "../../model/lanes";
import { scaleOf } from "../../model/scale";
import { ofEvent } from "../../model/selection";
import { layOut } from "../../model/timeline";
import { usePanel } from "../context";
import { Axis, Bands } from "./Axis";
import { EventGlyph } from "./EventGlyph";
import { onKey } from "./keys";
import { LaneLabel, LaneLine } from "./Lane";
import { heightOf, middle, placeLanes, rowsInView, TALLEST, type LaneRow } from "./laneRows";
import { Legend } from "./Legend";
import { Links } from "./Links";
import { Tip, type TipText } from "./Tip";
import { Tools } from "./Tools";
import { useWidth } from "./useWidth";
import { useWindow } from "./useWindow";

/** One lane per tensor: saves, writes and backward reads in program order. */
export function TimelineView(): JSX.Element | null {
  const { report, trans, selection, select } = usePanel();
  const timeline = useMemo(() => layOut(report), [report]);
  const [unfolded, setUnfolded] = useState<ReadonlySet<string>>(new Set());
  const lanes = useMemo(() => rows(timeline, unfolded), [timeline, unfolded]);
  const plot = useRef<HTMLDivElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const width = useWidth(plot, timeline.lanes.length > 0);
  const [scrolled, setScrolled] = useState(0);
  const [active, setActive] = useState<{ lane: string; mark: number } | null>(null);
  const [tip, setTip] = useState<TipText | null>(null);
  const focusWanted = useRef(false);
  const control = useWindow(timeline.extent, plot, width);
  const { window } = control;

  const scale = useMemo(() => scaleOf(window, width), [width, window]);
  const linked = useMemo(() => new Set(timeline.links.map((link) => link.write.event.tensor)), [timeline]);
  const placed = useMemo(() => placeLanes(lanes, linked), [lanes, linked]);
  const height = heightOf(placed);
  const drawn = rowsInView(placed, scrolled, scale);

  // Before the next key is read, so that a quick hand loses no step.
  useLayoutEffect(() => {
    if (!focusWanted.current) return;
    focusWanted.current = false;
    plot.current?.querySelector<SVGElement>('[data-ji="event"][tabindex="0"]')?.focus();
  });

  // The place of the chosen write on the axis.
  const chosenAt = (): number | undefined =>
    selection.mutation === null
      ? undefined
      : timeline.marks.find(
          (item) => item.event.kind === "write" && item.event.mutation === selection.mutation,
        )?.x;
  const inSight = (x: number): boolean => x >= window.from && x <= window.to;

  // A write chosen elsewhere comes into view.
  useEffect(() => {
    const x = chosenAt();
    if (!control.zoomed || x === undefined || inSight(x)) return;
    const size = window.to - window.from;
    const from = Math.max(0, x - size / 2);
    control.goTo({ from, to: from + size });
  }, [selection.mutation]);

  if (timeline.lanes.length === 0) return null;

  // The buttons zoom about the chosen write, where it is in sight.
  const zoomButton = (factor: number): void => {
    const x = chosenAt();
    control.zoomBy(factor, x !== undefined && inSight(x) ? x : undefined);
  };

  const holds = (row: LaneRow, glyph: Glyph): boolean =>
    active !== null && row.lane.key === active.lane && glyph.marks.some((mark) => mark.id === active.mark);
  const tabStop =
    drawn.flatMap((row) => row.glyphs.filter((glyph) => holds(row, glyph)))[0] ??
    drawn.flatMap((row) => row.glyphs).find((glyph) => glyph.hot) ??
    drawn.flatMap((row) => row.glyphs)[0];

  const activate = (row: LaneRow, glyph: Glyph): void => {
    setActive({ lane: row.lane.key, mark: leader(glyph).id });
  };
  const focusOn = (row: LaneRow, glyph: Glyph): void => {
    activate(row, glyph);
    focusWanted.current = true;
  };
  // Several marks in one glyph come apart; a single one, or the harmful one among them, is selected.
  const choose = (glyph: Glyph): void => {
    const mark = leader(glyph);
    if (glyph.marks.length > 1) {
      const first = glyph.marks[0]?.x ?? mark.x;
      const last = glyph.marks.at(-1)?.x ?? mark.x;
      if (last > first) {
        const room = Math.max(1, (last - first) * 0.6);
        control.goTo({ from: Math.max(0, first - room), to: Math.min(timeline.extent, last + room) });
      }
      if (!glyph.hot) return;
    }
    select(ofEvent(mark.event, mark.id, report));
  };
  const toggle = (group: string): void => {
    const next = new Set(unfolded);
    if (!next.delete(group)) next.add(group);
    setUnfolded(next);
  };

  return (
    <section class="ji-section ji-timeline" data-ji="timeline" aria-label={trans.__("Timeline")}>
      <div class="ji-head">
        <h3>{trans.__("Timeline")}</h3>
        <Tools zoomed={control.zoomed} onZoom={zoomButton} onFit={control.fit} />
      </div>
      <div
        class="ji-tl-scroll"
        ref={scroller}
        style={{ maxHeight: `${TALLEST}px` }}
        onScroll={(event) => {
          setScrolled(event.currentTarget.scrollTop);
        }}
        {...(height > TALLEST ? { tabIndex: 0, role: "group", "aria-label": trans.__("Lanes") } : {})}
      >
        <div class="ji-tl-labels" style={{ height: `${height}px` }}>
          {drawn.map((row) => (
            <LaneLabel key={row.lane.key} row={row} onToggle={toggle} />
          ))}
        </div>
        <div class="ji-tl-plot" ref={plot} data-ji-zoomed={control.zoomed}>
          <svg width={width} height={height} role="group" aria-label={trans.__("Events in program order")}>
            <Bands timeline={timeline} scale={scale} height={height} />
            {drawn.map((row) => (
              <LaneLine key={row.lane.key} row={row} scale={scale} />
            ))}
            <Links
              timeline={timeline}
              scale={scale}
              yOf={(name) => middle(placed.find((row) => row.lane.name === name))}
            />
            {drawn.map((row) => (
              <g key={row.lane.key} transform={`translate(0 ${middle(row)})`}>
                {row.glyphs.map((glyph) => (
                  <EventGlyph
                    key={leader(glyph).id}
                    row={row}
                    glyph={glyph}
                    scale={scale}
                    tabStop={glyph === tabStop}
                    onChoose={() => {
                      activate(row, glyph);
                      choose(glyph);
                    }}
                    onKey={(event) => {
                      onKey(event, row, glyph, { rows: drawn, control, focusOn, choose });
                    }}
                    onTip={setTip}
                  />
                ))}
              </g>
            ))}
          </svg>
        </div>
      </div>
      {tip !== null && (
        <Tip
          tip={tip}
          width={width}
          left={(plot.current?.offsetLeft ?? 0) + (scroller.current?.offsetLeft ?? 0)}
          top={(scroller.current?.offsetTop ?? 0) - scrolled}
        />
      )}
      <div class="ji-tl-foot">
        <Axis timeline={timeline} scale={scale} />
      </div>
      <Legend />
    </section>
  );
}
