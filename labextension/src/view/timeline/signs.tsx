// The signs of the timeline. Each differs from the others in shape, not in colour alone.

import type { JSX } from "preact";

import { leader, type Glyph } from "../../model/glyphs";
import { mutationOf } from "../../model/selection";
import type { Report, TimelineEvent } from "../../report/types";
import { count, opName, place, versionStep, visible, type Trans } from "../../report/words";

/** The sign itself, centred on the origin. */
export function Sign({ glyph }: { glyph: Glyph }): JSX.Element {
  const { event, hot } = leader(glyph);
  if (glyph.hotCount === 1) {
    const others = glyph.marks.length - 1;
    return (
      <>
        <OneSign event={event} hot={true} />
        {others > 0 && (
          <text y={-11} text-anchor="middle" class="ji-more-text">
            +{count(others)}
          </text>
        )}
      </>
    );
  }
  if (glyph.marks.length > 1) {
    const text = count(glyph.marks.length);
    const width = 11 + 6 * text.length;
    return (
      <>
        <rect x={-width / 2} y={-8} width={width} height={16} rx={8} class="ji-pill" />
        <text y={3.5} text-anchor="middle" class="ji-pill-text">
          {text}
        </text>
        {glyph.hot && <path d={`M${width / 2 - 2} -8 l4 -4 l4 4 l-4 4z`} class="ji-pill-flag" />}
      </>
    );
  }
  return <OneSign event={event} hot={hot} />;
}

function OneSign({ event, hot }: { event: TimelineEvent; hot: boolean }): JSX.Element {
  switch (event.kind) {
    case "write":
      return hot ? (
        <>
          <circle r={7.5} class="ji-sign-write-hot" />
          <path d="M0 -3.8V0.8M0 3.1V3.6" class="ji-sign-bang" />
        </>
      ) : (
        <circle r={4} class="ji-sign-write" />
      );
    case "save":
      return <path d="M0 -7L7 0L0 7L-7 0z" class={hot ? "ji-sign-save ji-sign-save-hot" : "ji-sign-save"} />;
    case "read":
      return hot ? (
        <>
          <circle r={6.5} class="ji-sign-read-hot" />
          <path d="M-3 -3L3 3M-3 3L3 -3" class="ji-sign-cross" />
        </>
      ) : (
        <circle r={4.5} class="ji-sign-read" />
      );
    case "backward":
      return <path d="M4 -6L-5 0L4 6z" class="ji-sign-backward" />;
  }
}

/** What a screen reader says of a glyph, and the tooltip's first line. */
export function spoken(glyph: Glyph, report: Report, trans: Trans): string {
  const { event } = leader(glyph);
  if (glyph.marks.length > 1) {
    const inside = new Map<string, number>();
    for (const mark of glyph.marks) inside.set(mark.event.kind, (inside.get(mark.event.kind) ?? 0) + 1);
    const parts = [...inside].map(
      ([kind, n]) => `${count(n)} ${kindWord(kind as TimelineEvent["kind"], n, trans)}`,
    );
    return `${parts.join(", ")}${glyph.hot ? ` · ${trans.__("harm among them")}` : ""}`;
  }
  return sentence(event, report, trans);
}

function kindWord(kind: TimelineEvent["kind"], n: number, trans: Trans): string {
  switch (kind) {
    case "save":
      return n === 1 ? trans.__("save") : trans.__("saves");
    case "write":
      return n === 1 ? trans.__("write") : trans.__("writes");
    case "read":
      return n === 1 ? trans.__("read") : trans.__("reads");
    case "backward":
      return n === 1 ? trans.__("backward") : trans.__("backwards");
  }
}

function sentence(event: TimelineEvent, report: Report, trans: Trans): string {
  const name = visible(event.tensor ?? "");
  const where = place(event.site, trans);
  const times = event.count > 1 ? ` ×${count(event.count)}` : "";
  const mutation = mutationOf(event, report);
  const version = event.version === null ? "" : ` · v${event.version}`;
  switch (event.kind) {
    case "write": {
      const op = mutation === null ? trans.__("write") : opName(mutation.op);
      const step = mutation === null ? version : ` · ${versionStep(mutation.versions)}`;
      const verdict = mutation === null || mutation.verdict === "harmless" ? "" : ` · ${mutation.verdict}`;
      return visible(`${op} ${trans.__("writes %1, %2", name, where)}${times}${step}${verdict}`);
    }
    case "save": {
      const lost = mutation === null ? "" : ` · ${trans.__("overwritten later")}`;
      return visible(`${trans.__("%1 saved for backward, %2", name, where)}${times}${version}${lost}`);
    }
    case "read": {
      const lost = mutation === null ? "" : ` · ${trans.__("not the value that was saved")}`;
      const task = event.task === null ? "" : ` · ${trans.__("backward of %1", event.task)}`;
      return visible(`${trans.__("%1 read by backward", name)}${times}${version}${task}${lost}`);
    }
    case "backward":
      return visible(`${trans.__("backward of %1", event.task ?? "?")} · ${where}${times}`);
  }
}
