import type { JSX } from "preact";
import { useMemo } from "preact/hooks";

import { diffLines } from "../../model/diff";
import { ofFix } from "../../model/selection";
import type { Fix } from "../../report/types";
import { kindName, number, visible } from "../../report/words";
import { usePanel } from "../context";
import { Icon, Sentence } from "../rich";
import { Actions } from "./Actions";
import { Diff } from "./Diff";
import { proof, readingName, statusName } from "./words";

/** One rewrite: what it changes, what its proof showed, its buttons. */
export function FixItem({
  fix,
  primary,
  compact,
}: {
  fix: Fix;
  primary: boolean;
  compact: boolean;
}): JSX.Element {
  const { report, selection, select, trans } = usePanel();
  const status = fix.verification.status;
  const lines = useMemo(
    () => diffLines(report.cell?.source ?? "", fix.source),
    [report.cell?.source, fix.source],
  );
  // Where there are many, what is not offered (yet) says what it is and keeps its difference folded.
  const folded = compact && (status === "failed" || status === "proving");
  return (
    <li
      class={`ji-fix ji-fix-${status}`}
      data-ji="fix"
      data-ji-id={fix.id}
      data-ji-kind={fix.kind}
      data-ji-status={status}
      data-ji-selected={selection.fix === fix.id || fix.mutations.includes(selection.mutation ?? -1)}
      onClick={() => {
        if (selection.fix !== fix.id) select(ofFix(fix));
      }}
    >
      <span class={`ji-proof ji-proof-${status}`}>
        <Icon
          name={
            status === "passed"
              ? "fine"
              : status === "failed"
                ? "error"
                : status === "proving"
                  ? "busy"
                  : "note"
          }
        />
        {statusName(status, trans)}
      </span>
      <div class="ji-fix-body">
        {!folded && <Diff lines={lines} />}
        <p class="ji-fix-text">
          <b>{kindName(fix.kind, trans)}</b>
          {fix.title !== "" && (
            <>
              {" · "}
              <Sentence text={fix.title} />
            </>
          )}
          {fix.reading !== null && <span class="ji-reading"> · {readingName(fix.reading, trans)}</span>}
        </p>
        <p class="ji-fix-text ji-muted" data-ji="proof">
          <Sentence text={proof(fix, trans).join(" · ")} />
        </p>
        {fix.reading !== null && fix.verification.gradients.length > 0 && <ReadingGradients fix={fix} />}
        {folded && (
          <details class="ji-fold-diff">
            <summary>{trans.__("difference")}</summary>
            <Diff lines={lines} />
          </details>
        )}
      </div>
      <Actions fix={fix} primary={primary} />
    </li>
  );
}

/** The gradients under one reading of a refused write: the readings differ in nothing but these. */
function ReadingGradients({ fix }: { fix: Fix }): JSX.Element {
  const { trans } = usePanel();
  const shown = fix.verification.gradients.slice(0, 8);
  return (
    <ul class="ji-reading-gradients">
      {shown.map((row) => (
        <li key={`${row.task}\u0000${row.leaf}`}>
          <code>{visible(row.task)}</code> → <code>{visible(row.leaf)}</code>{" "}
          {trans.__("norm %1", number(row.norm_as_run ?? row.norm_reference))}
        </li>
      ))}
    </ul>
  );
}
