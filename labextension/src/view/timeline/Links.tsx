// The line from a harmful write to each saved tensor that it destroyed.

import type { JSX } from "preact";

import type { Scale } from "../../model/scale";
import type { Link, Timeline } from "../../model/timeline";
import { opName } from "../../report/words";
import { usePanel } from "../context";

const DEPTH = 15;

export function Links({
  timeline,
  scale,
  yOf,
}: {
  timeline: Timeline;
  scale: Scale;
  yOf: (lane: string) => number;
}): JSX.Element {
  const { report, selection, trans } = usePanel();
  const byWrite = new Map<number, Link[]>();
  for (const link of timeline.links) {
    const known = byWrite.get(link.conflict.mutation);
    if (known === undefined) byWrite.set(link.conflict.mutation, [link]);
    else known.push(link);
  }
  const taken: [number, number, number][] = [];
  return (
    <g aria-hidden="true" class="ji-links">
      {[...byWrite].map(([mutation, links]) => {
        const selected = selection.mutation === mutation;
        const [any] = links;
        if (any === undefined) return null;
        const x = scale.x(any.write.x);
        const y = yOf(any.write.event.tensor ?? "?");
        const op = report.mutations.find((item) => item.id === mutation)?.op ?? "";
        const text = trans._n(
          "%2 overwrites 1 saved tensor",
          "%2 overwrites %1 saved tensors",
          links.length,
          opName(op),
        );
        const room = text.length * 6.2;
        const left = x + 10 + room > scale.width;
        const from = left ? x - 10 - room : x + 10;
        const free =
          x > 0 &&
          x < scale.width &&
          from > 0 &&
          !taken.some(([a, b, at]) => at === y && from < b && from + room > a);
        if (free) taken.push([from, from + room, y]);
        return (
          <g key={mutation} data-ji-selected={selected}>
            {links.map((link, i) => {
              const y2 = yOf(link.save.event.tensor ?? "?");
              if (Number.isNaN(y) || Number.isNaN(y2)) return null;
              const x2 = scale.x(link.save.x);
              const chosen =
                selected && (selection.conflict === null || selection.conflict === link.conflict.id);
              return (
                <path
                  key={link.conflict.id}
                  d={curve(x, y, x2, y2, DEPTH + (i % 3) * 5)}
                  class="ji-link-line"
                  pathLength={100}
                  data-ji-selected={chosen}
                />
              );
            })}
            {free && !Number.isNaN(y) && (
              <text x={from} y={y + 22} class="ji-link-text">
                {text}
              </text>
            )}
          </g>
        );
      })}
    </g>
  );
}

// Within a lane an arc below it, between lanes an S.
function curve(x1: number, y1: number, x2: number, y2: number, depth: number): string {
  if (y1 === y2) {
    const d = y1 + 6 + depth;
    return `M${x1} ${y1 + 7}C${x1} ${d} ${x2} ${d} ${x2} ${y2 + 8}`;
  }
  const middle = (y1 + y2) / 2;
  return `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}`;
}
