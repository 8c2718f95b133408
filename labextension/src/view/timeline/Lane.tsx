// One lane of the timeline: its name, and its line with the versions of its tensor.

import type { JSX } from "preact";

import type { Scale } from "../../model/scale";
import { count, visible } from "../../report/words";
import { usePanel } from "../context";
import { middle, PLAIN, WITH_LINKS, type LaneRow, type PlacedLane } from "./laneRows";

/** The name of a lane; of a folded group, the button that unfolds it. */
export function LaneLabel(props: { row: PlacedLane; onToggle: (group: string) => void }): JSX.Element {
  const { trans } = usePanel();
  const { lane, y, height } = props.row;
  const place = { top: `${y}px`, height: `${height === WITH_LINKS ? PLAIN : height}px` };
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

export function LaneLine({ row, scale }: { row: LaneRow; scale: Scale }): JSX.Element {
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
