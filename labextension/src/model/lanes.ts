// Which lanes of a timeline are drawn: many are folded by the variable that holds the tensors.

import type { Lane, Timeline } from "./timeline";

const PLAIN_LANES = 8;

function groupOf(lane: Lane): string {
  if (/^t\d+$/.test(lane.name)) return "·unnamed";
  const root = /^[^.[]+/.exec(lane.name)?.[0] ?? lane.name;
  return root === lane.name ? "·others" : root;
}

/** The rows to draw: hurt lanes always, the others folded by the variable that holds them, where they are many. */
export function rows(timeline: Timeline, unfolded: ReadonlySet<string>): Lane[] {
  if (timeline.lanes.length <= PLAIN_LANES) return timeline.lanes;
  const shown = timeline.lanes.filter((lane) => lane.hot);
  const groups = new Map<string, Lane[]>();
  for (const lane of timeline.lanes) {
    if (lane.hot) continue;
    const name = groupOf(lane);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [lane]);
    else group.push(lane);
  }
  for (const [name, lanes] of groups) {
    const [only] = lanes;
    if (lanes.length === 1 && only !== undefined) {
      shown.push(only);
      continue;
    }
    const open = unfolded.has(name);
    shown.push({
      key: `group:${name}`,
      name,
      marks: open ? [] : lanes.flatMap((lane) => lane.marks).sort((a, b) => a.x - b.x || a.id - b.id),
      segments: [],
      hot: false,
      size: lanes.length,
      group: name,
      role: open ? "unfolded" : "folded",
    });
    if (open) shown.push(...lanes.map((lane) => ({ ...lane, group: name })));
  }
  return shown;
}
