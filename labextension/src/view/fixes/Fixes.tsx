import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";

import { harmful } from "../../model/selection";
import type { Fix, FixStatus, Report } from "../../report/types";
import type { Trans } from "../../report/words";
import { usePanel } from "../context";
import { Icon } from "../rich";
import { FixItem } from "./FixItem";
import { statusName } from "./words";

const ORDER: Record<FixStatus, number> = { passed: 0, proving: 1, unverified: 2, failed: 3 };
/** Up to so many are all shown whole. */
const FEW = 4;
/** Of each kind of outcome, where they are more. */
const SHOWN = 2;

/** The rewrites: proved ones first, each a small diff with its proof and its buttons. */
export function Fixes(): JSX.Element | null {
  const { report, trans } = usePanel();
  const [all, setAll] = useState(false);
  const sorted = useMemo(
    () => [...report.fixes].sort((a, b) => ORDER[a.verification.status] - ORDER[b.verification.status]),
    [report],
  );
  const busy = proving(report);
  if (sorted.length === 0 && busy === null) {
    const wanted = harmful(report).some(({ verdict }) => verdict !== "mixes" && verdict !== "unknown");
    return !wanted || report.cell === null ? null : (
      <section class="ji-section" data-ji="fixes">
        <h3>{trans.__("Rewrites")}</h3>
        <p class="ji-muted">{trans.__("No rewrite of this cell is known that keeps its gradients.")}</p>
      </section>
    );
  }
  const groups = (["passed", "proving", "unverified", "failed"] as const).map((status) =>
    sorted.filter((fix) => fix.verification.status === status),
  );
  const shown = groups.flatMap((group) => (all || sorted.length <= FEW ? group : group.slice(0, SHOWN)));
  const hidden = sorted.length - shown.length;
  // Of two readings of a refused write neither is put forward.
  const first = sorted.find((fix) => fix.verification.status === "passed" && fix.reading === null);
  return (
    <section class="ji-section" data-ji="fixes" aria-label={trans.__("Rewrites")}>
      <div class="ji-head">
        <h3>{trans.__("Rewrites")}</h3>
        {busy === null ? (
          <span class="ji-hint">{trans.__("tried on a copy of the state from before the cell")}</span>
        ) : (
          <span class="ji-hint ji-busy" data-ji="proving" role="status">
            <Icon name="busy" />
            {trans.__("trying rewrites, %1 of %2 done", busy.done, busy.total)}
          </span>
        )}
      </div>
      {report.verdict === "rejected" && sorted.length > 1 && (
        <p class="ji-muted ji-readings">
          {trans.__(
            "The write never ran, so only you know which mathematics is meant: each reading is shown.",
          )}
        </p>
      )}
      <ul class="ji-fixes">
        {shown.map((fix) => (
          <FixItem key={fix.id} fix={fix} primary={fix === first} compact={sorted.length > FEW} />
        ))}
      </ul>
      {(hidden > 0 || all) && sorted.length > FEW && (
        <button
          type="button"
          class="ji-link ji-all"
          aria-expanded={all}
          onClick={() => {
            setAll(!all);
          }}
        >
          {all ? trans.__("show fewer") : hiddenText(groups, trans)}
        </button>
      )}
    </section>
  );
}

function hiddenText(groups: readonly (readonly Fix[])[], trans: Trans): string {
  const parts = groups.flatMap((group) => {
    const [fix] = group;
    const more = group.length - SHOWN;
    return fix === undefined || more <= 0 ? [] : [`${more} ${statusName(fix.verification.status, trans)}`];
  });
  return trans.__("show all: %1 more", parts.join(", "));
}

/** How far the proofs are; null when all are done. */
export function proving(report: Report): { done: number; total: number } | null {
  const left = report.fixes.filter((fix) => fix.verification.status === "proving").length;
  return left === 0 ? null : { done: report.fixes.length - left, total: report.fixes.length };
}
