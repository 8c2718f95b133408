// Under the lanes: the lines of the cell; behind them: the backward passes, one colour per task.

import type { JSX } from "preact";

import type { Scale } from "../../model/scale";
import type { Band, Timeline } from "../../model/timeline";
import { visible } from "../../report/words";
import { usePanel } from "../context";

const CHAR = 6.4;

interface Label {
  x: number;
  text: string;
  class: string;
  colour: number | null;
  anchor: "start" | "middle" | "end";
  weight: number;
}

export function Bands({
  timeline,
  scale,
  height,
}: {
  timeline: Timeline;
  scale: Scale;
  height: number;
}): JSX.Element {
  const { taskColour, selection } = usePanel();
  return (
    <g aria-hidden="true">
      {wide(timeline.bands, scale).map((band, i) => {
        const [x, end] = span(band.from, band.to, scale);
        return end <= x ? null : (
          <rect
            key={i}
            x={x}
            y={0}
            width={end - x}
            height={height}
            class="ji-band"
            data-ji-colour={band.task === MIXED ? "none" : taskColour(band.task)}
            data-ji-selected={selection.task === band.task}
          />
        );
      })}
    </g>
  );
}

const MIXED = "\u0000";
/** Pixels below which a band's colour could not be told. */
const NARROW = 2;

// Neighbours too narrow to be seen become one band of no task's colour, and what is out of sight is left out.
function wide(bands: readonly Band[], scale: Scale): Band[] {
  const found: Band[] = [];
  for (const band of bands) {
    if (band.to < scale.window.from || band.from > scale.window.to) continue;
    const narrow = scale.x(band.to) - scale.x(band.from) < NARROW;
    const last = found.at(-1);
    if (!narrow) found.push(band);
    else if (last?.task === MIXED && scale.x(band.from) - scale.x(last.to) < NARROW) last.to = band.to;
    else found.push({ ...band, task: MIXED });
  }
  return found;
}

function span(from: number, to: number, scale: Scale): [number, number] {
  return [Math.max(0, scale.x(from)), Math.min(scale.width, scale.x(to))];
}

export function Axis({ timeline, scale }: { timeline: Timeline; scale: Scale }): JSX.Element {
  const { trans, taskColour } = usePanel();
  const labels: Label[] = [];
  let first = true;
  for (const column of timeline.columns) {
    if (column.backward || column.to < scale.window.from || column.from > scale.window.to) continue;
    const x = scale.x((column.from + column.to) / 2);
    if (x < 0 || x > scale.width) continue;
    const text = column.line === null ? "·" : first ? trans.__("line %1", column.line) : String(column.line);
    first = false;
    labels.push({
      x,
      text,
      class: column.hot ? "ji-tick ji-tick-hot" : "ji-tick",
      colour: null,
      anchor: "middle",
      weight: column.hot ? 2 : 0,
    });
  }
  for (const band of wide(timeline.bands, scale)) {
    if (band.task === MIXED) continue;
    const [from, to] = span(band.from, band.to, scale);
    if (to <= from) continue;
    const long = trans.__("backward of %1", visible(band.task));
    const text = long.length * CHAR < to - from + 10 ? long : visible(band.task);
    labels.push({
      x: (from + to) / 2,
      text: band.task === "" ? trans.__("backward") : text,
      class: "ji-tick ji-tick-band",
      colour: taskColour(band.task),
      anchor: "middle",
      weight: 1,
    });
  }
  const shown = thin(labels, scale.width);
  return (
    <svg class="ji-axis" width={scale.width} height={18} role="img" aria-label={axisText(timeline)}>
      {shown.map((label) => (
        <text
          key={`${label.text}@${label.x}`}
          x={label.x}
          y={12}
          text-anchor={label.anchor}
          class={label.class}
          {...(label.colour === null ? {} : { "data-ji-colour": label.colour })}
        >
          {label.text}
        </text>
      ))}
    </svg>
  );

  function axisText(shownTimeline: Timeline): string {
    const names = [...new Set(shownTimeline.bands.map((band) => visible(band.task)))].filter(Boolean);
    return names.length === 0
      ? trans.__("Lines of the cell")
      : trans.__("Lines of the cell, then the backward passes of %1", names.join(", "));
  }
}

// The weightiest labels first; who would overlap one that stands is left out.
function thin(labels: readonly Label[], width: number): Label[] {
  const taken: [number, number][] = [];
  const kept: Label[] = [];
  for (const label of [...labels].sort((a, b) => b.weight - a.weight)) {
    const half = (label.text.length * CHAR) / 2 + 6;
    const x = Math.min(Math.max(label.x, half), width - half);
    if (taken.some(([from, to]) => x + half > from && x - half < to)) continue;
    taken.push([x - half, x + half]);
    kept.push({ ...label, x });
  }
  return kept.sort((a, b) => a.x - b.x);
}
