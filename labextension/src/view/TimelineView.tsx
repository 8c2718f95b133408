import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { ofEvent, touchesEvent } from "../model/selection";
import { foldReadably, layOut, leader, rows, type Glyph, type Lane, type Window } from "../model/timeline";
import { count, visible } from "../report/words";
import { Axis, Bands } from "./Axis";
import { usePanel } from "./context";
import { Sign, spoken } from "./glyphs";
import { Links } from "./Links";
import { useWindow } from "./useWindow";

const PLAIN = 30;
const WITH_LINKS = 54;
const TOP = 18;
const TALLEST = 400;
const PAD = 14;

export interface Scale {
  x: (unit: number) => number;
  window: Window;
  width: number;
}

interface Row {
  lane: Lane;
  y: number;
  height: number;
  glyphs: Glyph[];
}

/** One lane per tensor: saves, writes and backward reads in program order. */
export function TimelineView(): JSX.Element | null {
  const { report, trans, selection, select } = usePanel();
  const timeline = useMemo(() => layOut(report), [report]);
  const [unfolded, setUnfolded] = useState<ReadonlySet<string>>(new Set());
  const lanes = useMemo(() => rows(timeline, unfolded), [timeline, unfolded]);
  const plot = useRef<HTMLDivElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(600);
  const [scrolled, setScrolled] = useState(0);
  const [active, setActive] = useState<{ lane: string; mark: number } | null>(null);
  const [tip, setTip] = useState<{ x: number; y: number; text: string; code: string } | null>(null);
  const focusWanted = useRef(false);
  const control = useWindow(timeline.extent, plot, width);
  const { window } = control;

  useLayoutEffect(() => {
    const element = plot.current;
    if (element === null) return undefined;
    const measure = (): void => {
      if (element.clientWidth > 0) setWidth(element.clientWidth);
    };
    measure();
    if (typeof ResizeObserver !== "function") return undefined;
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => {
      observer.disconnect();
    };
  }, [timeline.lanes.length > 0]);

  const scale: Scale = useMemo(() => {
    const inner = Math.max(1, width - 2 * PAD);
    const perUnit = inner / (window.to - window.from);
    return { x: (unit) => PAD + (unit - window.from) * perUnit, window, width };
  }, [width, window]);

  const linked = useMemo(() => new Set(timeline.links.map((link) => link.write.event.tensor)), [timeline]);
  const laid = useMemo(() => {
    let y = TOP;
    return lanes.map((lane) => {
      const height = linked.has(lane.name) ? WITH_LINKS : PLAIN;
      const row = { lane, y, height };
      y += height;
      return row;
    });
  }, [lanes, linked]);
  const height = (laid.at(-1)?.y ?? 0) + (laid.at(-1)?.height ?? 0);
  const perUnit = (width - 2 * PAD) / (window.to - window.from);
  const drawn: Row[] = laid
    .filter((row) => row.y + row.height >= scrolled - 60 && row.y <= scrolled + TALLEST + 60)
    .map((row) => ({
      ...row,
      glyphs: foldReadably(
        row.lane.marks,
        1 / perUnit,
        window.from - PAD / perUnit,
        window.to + PAD / perUnit,
      ),
    }));

  // Before the next key is read, so that a quick hand loses no step.
  useLayoutEffect(() => {
    if (!focusWanted.current) return;
    focusWanted.current = false;
    plot.current?.querySelector<SVGElement>('[data-ji="event"][tabindex="0"]')?.focus();
  });

  // A write chosen elsewhere comes into view.
  useEffect(() => {
    if (selection.mutation === null || !control.zoomed) return;
    const mark = timeline.marks.find(
      (item) => item.event.kind === "write" && item.event.mutation === selection.mutation,
    );
    if (mark === undefined || (mark.x >= window.from && mark.x <= window.to)) return;
    const half = (window.to - window.from) / 2;
    control.goTo({
      from: Math.max(0, mark.x - half),
      to: Math.max(0, mark.x - half) + 2 * half,
    });
  }, [selection.mutation]);

  if (timeline.lanes.length === 0) return null;

  // The buttons zoom about the chosen write, where it is in sight.
  const zoomButton = (factor: number): void => {
    const mark = timeline.marks.find(
      (item) => item.event.kind === "write" && item.event.mutation === selection.mutation,
    );
    const inSight =
      mark !== undefined && selection.mutation !== null && mark.x >= window.from && mark.x <= window.to;
    control.zoomBy(factor, inSight ? mark.x : undefined);
  };

  const holds = (row: Row, glyph: Glyph): boolean =>
    active !== null && row.lane.key === active.lane && glyph.marks.some((mark) => mark.id === active.mark);
  const tabStop =
    drawn.flatMap((row) => row.glyphs.filter((glyph) => holds(row, glyph)))[0] ??
    drawn.flatMap((row) => row.glyphs).find((glyph) => glyph.hot) ??
    drawn.flatMap((row) => row.glyphs)[0];

  const focusOn = (row: Row, glyph: Glyph): void => {
    setActive({ lane: row.lane.key, mark: leader(glyph).id });
    focusWanted.current = true;
  };
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
  const onKey = (event: KeyboardEvent, row: Row, glyph: Glyph): void => {
    const at = drawn.indexOf(row);
    const index = row.glyphs.indexOf(glyph);
    const neighbour = (by: number): Row | undefined => {
      for (let i = at + by; i >= 0 && i < drawn.length; i += by) {
        if ((drawn[i]?.glyphs.length ?? 0) > 0) return drawn[i];
      }
      return undefined;
    };
    const nearest = (other: Row | undefined): void => {
      const found = other?.glyphs.reduce((a, b) =>
        Math.abs(b.x - glyph.x) < Math.abs(a.x - glyph.x) ? b : a,
      );
      if (other !== undefined && found !== undefined) focusOn(other, found);
    };
    const beside = (by: 1 | -1): void => {
      const next = row.glyphs[index + by];
      const inView = next !== undefined && next.x >= window.from && next.x <= window.to;
      if (!inView && control.zoomed) control.panBy(by * (window.to - window.from) * 0.5);
      if (next !== undefined) focusOn(row, next);
    };
    const first = row.glyphs[0];
    const last = row.glyphs.at(-1);
    switch (event.key) {
      case "ArrowRight":
        beside(1);
        break;
      case "ArrowLeft":
        beside(-1);
        break;
      case "ArrowDown":
        nearest(neighbour(1));
        break;
      case "ArrowUp":
        nearest(neighbour(-1));
        break;
      case "Home":
        if (first !== undefined) focusOn(row, first);
        break;
      case "End":
        if (last !== undefined) focusOn(row, last);
        break;
      case "Enter":
      case " ":
        setActive({ lane: row.lane.key, mark: leader(glyph).id });
        focusWanted.current = true;
        choose(glyph);
        break;
      case "+":
      case "=":
        control.zoomBy(0.5, glyph.x);
        break;
      case "-":
        control.zoomBy(2, glyph.x);
        break;
      case "0":
        control.fit();
        break;
      default:
        return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <section class="ji-section ji-timeline" data-ji="timeline" aria-label={trans.__("Timeline")}>
      <div class="ji-head">
        <h3>{trans.__("Timeline")}</h3>
        <span class="ji-tools">
          <span class="ji-hint">{trans.__("program order · Ctrl+scroll zooms")}</span>
          <button
            type="button"
            class="ji-tool"
            aria-label={trans.__("Zoom out")}
            onClick={() => {
              zoomButton(2);
            }}
          >
            −
          </button>
          <button
            type="button"
            class="ji-tool"
            aria-label={trans.__("Zoom in")}
            onClick={() => {
              zoomButton(0.5);
            }}
          >
            +
          </button>
          <button
            type="button"
            class="ji-tool"
            aria-label={trans.__("Show all")}
            disabled={!control.zoomed}
            onClick={control.fit}
          >
            ⤢
          </button>
        </span>
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
          {drawn.map(({ lane, y, height: tall }) => (
            <LaneLabel
              key={lane.key}
              lane={lane}
              y={y}
              height={tall === WITH_LINKS ? PLAIN : tall}
              onToggle={(name) => {
                const next = new Set(unfolded);
                if (!next.delete(name)) next.add(name);
                setUnfolded(next);
              }}
            />
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
              yOf={(name) => middle(laid.find((row) => row.lane.name === name))}
            />
            {drawn.map((row) => (
              <g key={row.lane.key} transform={`translate(0 ${middle(row)})`}>
                {row.glyphs.map((glyph) => {
                  const mark = leader(glyph);
                  const label = spoken(glyph, report, trans);
                  const x = scale.x(glyph.x);
                  const show = (): void => {
                    setTip({
                      x,
                      y: middle(row),
                      text: `${row.lane.role === "folded" ? "" : `${visible(row.lane.name)}: `}${label}`,
                      code: glyph.marks.length > 1 ? "" : visible(mark.event.site?.text ?? ""),
                    });
                  };
                  return (
                    <g
                      key={mark.id}
                      class="ji-event"
                      transform={`translate(${x.toFixed(1)} 0)`}
                      role="button"
                      tabindex={glyph === tabStop ? 0 : -1}
                      aria-label={`${visible(row.lane.name)}: ${label}`}
                      aria-pressed={glyph.marks.some((item) =>
                        touchesEvent(selection, item.event, item.id, report),
                      )}
                      data-ji="event"
                      data-ji-id={mark.id}
                      data-ji-kind={mark.event.kind}
                      data-ji-count={glyph.marks.length}
                      data-ji-hot={glyph.hot}
                      data-ji-selected={glyph.marks.some((item) =>
                        touchesEvent(selection, item.event, item.id, report),
                      )}
                      onClick={() => {
                        setActive({ lane: row.lane.key, mark: mark.id });
                        choose(glyph);
                      }}
                      onKeyDown={(event) => {
                        onKey(event, row, glyph);
                      }}
                      onMouseEnter={show}
                      onMouseLeave={() => {
                        setTip(null);
                      }}
                      onFocus={show}
                      onBlur={() => {
                        setTip(null);
                      }}
                    >
                      <circle r={11} class="ji-halo" />
                      <Sign glyph={glyph} />
                    </g>
                  );
                })}
              </g>
            ))}
          </svg>
        </div>
      </div>
      {tip !== null && (
        <div
          class="ji-tip"
          role="tooltip"
          data-ji-side={tip.x > width * 0.6 ? "left" : "right"}
          style={{
            left: `${(plot.current?.offsetLeft ?? 0) + (scroller.current?.offsetLeft ?? 0) + tip.x}px`,
            top: `${(scroller.current?.offsetTop ?? 0) + tip.y - scrolled}px`,
          }}
        >
          {tip.code !== "" && <code>{tip.code}</code>}
          <span>{tip.text}</span>
        </div>
      )}
      <div class="ji-tl-foot">
        <Axis timeline={timeline} scale={scale} />
      </div>
      <Legend />
    </section>
  );
}

function middle(row: { y: number } | undefined): number {
  return row === undefined ? NaN : row.y + PLAIN / 2;
}

function LaneLabel(props: {
  lane: Lane;
  y: number;
  height: number;
  onToggle: (group: string) => void;
}): JSX.Element {
  const { trans } = usePanel();
  const { lane, y, height } = props;
  const place = { top: `${y}px`, height: `${height}px` };
  if (lane.role === "lane") {
    return (
      <div
        class={`ji-lane-label${lane.group === null ? "" : " ji-lane-inner"}`}
        style={place}
        title={visible(lane.name)}
        data-ji-hot={lane.hot}
      >
        <bdi>{visible(lane.name)}</bdi>
      </div>
    );
  }
  const name =
    lane.name === "·unnamed"
      ? trans.__("unnamed")
      : lane.name === "·others"
        ? trans.__("other tensors")
        : visible(lane.name);
  return (
    <button
      type="button"
      class="ji-lane-label ji-lane-fold"
      style={place}
      aria-expanded={lane.role === "unfolded"}
      data-ji="lane-group"
      onClick={() => {
        if (lane.group !== null) props.onToggle(lane.group);
      }}
    >
      <span aria-hidden="true">{lane.role === "unfolded" ? "▾" : "▸"}</span> {name}{" "}
      <span class="ji-muted">{count(lane.size)}</span>
    </button>
  );
}

function LaneLine({ row, scale }: { row: Row; scale: Scale }): JSX.Element {
  const y = middle(row);
  const clip = (x: number): number => Math.min(Math.max(x, 0), scale.width);
  const { from, to } = scale.window;
  return (
    <g aria-hidden="true">
      <path d={`M0 ${y}H${scale.width}`} class="ji-lane-line" />
      {row.lane.segments
        .filter((segment) => segment.to >= from && segment.from <= to)
        .map((segment) => {
          const start = clip(scale.x(segment.from));
          const end = clip(scale.x(segment.to));
          return (
            <g
              key={`${segment.version}:${segment.from}`}
              class={segment.hot ? "ji-seg ji-seg-hot" : "ji-seg"}
            >
              {row.lane.hot && <path d={`M${start} ${y}H${end}`} class="ji-seg-line" />}
              {end - start > 26 && (row.lane.hot || row.lane.segments.length > 1) && (
                <text x={start + Math.min((end - start) / 2, 34)} y={y - 9} class="ji-version">
                  v{segment.version}
                </text>
              )}
            </g>
          );
        })}
    </g>
  );
}

function Legend(): JSX.Element {
  const { trans, report } = usePanel();
  const has = (kind: string): boolean => report.timeline.some((event) => event.kind === kind);
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
