import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";

import type { Outcome } from "../host/protocol";
import { diffLines, type DiffLine } from "../model/diff";
import { harmful, ofFix } from "../model/selection";
import type { Fix, FixStatus, Report } from "../report/types";
import { bytes, kindName, number, visible, type Trans } from "../report/words";
import { usePanel } from "./context";
import { Icon, Sentence } from "./rich";

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
    const wanted = harmful(report).some((mutation) => mutation.verdict !== "mixes");
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

function FixItem({ fix, primary, compact }: { fix: Fix; primary: boolean; compact: boolean }): JSX.Element {
  const { report, selection, select, host, apply, undo, trans } = usePanel();
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [busy, setBusy] = useState(false);
  const status = fix.verification.status;
  const lines = useMemo(
    () => diffLines(report.cell?.source ?? "", fix.source),
    [report.cell?.source, fix.source],
  );
  const applied = host.applied === fix.id;
  // Where there are many, what is not offered (yet) says what it is and keeps its difference folded.
  const folded = compact && (status === "failed" || status === "proving");
  const offered = status === "passed" || status === "unverified";
  const act = (work: () => Promise<Outcome>): void => {
    setBusy(true);
    setOutcome(null);
    void work()
      .catch((error: unknown) => ({
        ok: false,
        message: error instanceof Error ? error.message : String(error),
      }))
      .then((result) => {
        setOutcome(result);
        setBusy(false);
      });
  };
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
      <div class="ji-actions">
        {applied ? (
          <>
            <span class="ji-applied" data-ji="applied">
              <Icon name="fine" /> {trans.__("applied")}
            </span>
            <button
              type="button"
              class="ji-button"
              data-ji="undo"
              onClick={() => {
                act(() => undo(fix));
              }}
            >
              {trans.__("Undo")}
            </button>
          </>
        ) : offered ? (
          <>
            <button
              type="button"
              class="ji-button"
              data-ji="apply"
              disabled={busy}
              onClick={() => {
                act(() => apply(fix, false));
              }}
            >
              {trans.__("Apply")}
            </button>
            {host.canRun === true && host.trusted === true && (
              <button
                type="button"
                class={primary ? "ji-button ji-primary" : "ji-button"}
                data-ji="apply-run"
                disabled={busy}
                onClick={() => {
                  act(() => apply(fix, true));
                }}
              >
                {trans.__("Apply and run")}
              </button>
            )}
          </>
        ) : (
          <span class="ji-muted">{status === "proving" ? "" : trans.__("not offered")}</span>
        )}
        <span class="ji-outcome" role="status" data-ji="outcome" data-ji-ok={outcome?.ok ?? ""}>
          {outcome === null ? "" : visible(outcome.message)}
        </span>
      </div>
    </li>
  );
}

function statusName(status: FixStatus, trans: Trans): string {
  switch (status) {
    case "passed":
      return trans.__("proved");
    case "failed":
      return trans.__("fails");
    case "unverified":
      return trans.__("not proved");
    case "proving":
      return trans.__("being tried");
  }
}

function readingName(reading: "update" | "copy", trans: Trans): string {
  return reading === "update"
    ? trans.__("the leaf itself takes the new value")
    : trans.__("a new tensor goes on, the leaf stays");
}

/** What the trial showed, in short pieces. */
export function proof(fix: Fix, trans: Trans): string[] {
  const { verification } = fix;
  const parts: string[] = [];
  if (verification.status === "passed") {
    if (verification.losses_equal === true) parts.push(trans.__("same losses"));
    const right = verification.gradients.filter((row) => row.status === "ok").length;
    if (verification.gradients.length > 0) {
      parts.push(trans.__("%1 of %2 gradients right", right, verification.gradients.length));
    } else if (verification.gradients_equal === true) {
      parts.push(trans.__("gradients equal the reference"));
    }
    if (verification.covered !== null) {
      parts.push(
        trans._n("proved over the first round", "proved over the first %1 rounds", verification.covered),
      );
    }
    if (verification.reason !== null) parts.push(verification.reason);
  } else if (verification.reason !== null) {
    parts.push(verification.reason);
  } else if (verification.status === "failed") {
    if (verification.runs === false) parts.push(trans.__("it still raises"));
    else if (verification.losses_equal === false) parts.push(trans.__("it changes the losses"));
    else if (verification.gradients_equal === false)
      parts.push(trans.__("it runs, and its gradients are wrong"));
    else if (verification.verdict !== null)
      parts.push(trans.__("watched again it is `%1`", verification.verdict));
  }
  if (verification.status !== "failed" && fix.extra_bytes !== null) {
    parts.push(fix.extra_bytes === 0 ? trans.__("no extra memory") : `+${bytes(fix.extra_bytes)}`);
  }
  return parts;
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

function Diff({ lines }: { lines: readonly DiffLine[] }): JSX.Element {
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
