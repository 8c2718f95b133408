import type { JSX } from "preact";

import type { DiffLine } from "../../model/diff";
import { visible } from "../../report/words";
import { usePanel } from "../context";

/** What a rewrite changes, line by line, with the changed part of each line. */
export function Diff({ lines }: { lines: readonly DiffLine[] }): JSX.Element {
  const { trans } = usePanel();
  if (lines.length === 0) return <p class="ji-muted">{trans.__("the cell as it is")}</p>;
  const indent = Math.min(
    ...lines
      .filter((line) => line.text.trim() !== "")
      .map((line) => line.text.length - line.text.trimStart().length),
  );
  const cutBy = Number.isFinite(indent) ? indent : 0;
  return (
    <div class="ji-diff" data-ji="diff" tabIndex={0} role="group" aria-label={trans.__("Difference")}>
      {lines.map((line, i) =>
        line.kind === "gap" ? (
          <div key={i} class="ji-diff-gap" aria-hidden="true">
            ⋯
          </div>
        ) : (
          <div key={i} class={`ji-diff-line ji-diff-${line.kind}`} data-ji-line={line.line}>
            <span
              class="ji-sign"
              aria-label={line.kind === "added" ? trans.__("added") : trans.__("removed")}
              role="img"
            >
              {line.kind === "added" ? "+" : "−"}
            </span>
            <code>
              <Changed line={line} cutBy={cutBy} />
            </code>
          </div>
        ),
      )}
    </div>
  );
}

function Changed({ line, cutBy }: { line: DiffLine; cutBy: number }): JSX.Element {
  if (line.changed === null) return <>{visible(line.text.slice(cutBy))}</>;
  const [from, to] = line.changed;
  const start = Math.max(from, cutBy);
  return (
    <>
      {visible(line.text.slice(cutBy, start))}
      {to > start && <mark>{visible(line.text.slice(start, to))}</mark>}
      {visible(line.text.slice(Math.max(to, start)))}
    </>
  );
}
