import type { JSX } from "preact";

import { harmful } from "../model/selection";
import type { Report, Verdict as Word } from "../report/types";
import type { Trans } from "../report/words";
import { count, visible } from "../report/words";
import { usePanel } from "./context";
import { Icon, Sentence } from "./rich";

/** How loud a verdict is, in shape and colour. A word that stands here by no name is a warning, and never fine. */
export function tone(verdict: Word): "error" | "warning" | "note" | "fine" {
  switch (verdict) {
    case "rejected":
    case "breaks":
      return "error";
    case "corrupts":
    case "cuts":
    case "unknown":
      return "warning";
    case "mixes":
      return "note";
    case "harmless":
      return "fine";
    default:
      return "warning";
  }
}

/** The numbers under the sentence. */
export function facts(report: Report, trans: Trans): string[] {
  const unknown = report.mutations.filter((mutation) => mutation.verdict === "unknown").length;
  const bad = harmful(report).length - unknown;
  const all = report.mutations.length;
  const writes = report.mutations.reduce((sum, mutation) => sum + mutation.count, 0);
  const leaves = new Set(report.gradients.map((row) => row.leaf));
  const hit = new Set(
    report.gradients.filter((row) => row.status !== "ok" && row.status !== "unknown").map((row) => row.leaf),
  );
  const known = report.gradients.every((row) => row.status !== "unknown");
  const proved = report.fixes.filter((fix) => fix.verification.status === "passed").length;
  const lines = [
    bad === 0
      ? trans._n("%1 in-place write", "%1 in-place writes", writes, count(writes))
      : trans.__("%1 of %2 writes harmful", bad, count(all)),
  ];
  if (unknown > 0)
    lines.push(trans._n("%1 write not known to be harmless", "%1 writes not known to be harmless", unknown));
  if (report.tasks.length > 0) lines.push(trans._n("%1 task", "%1 tasks", report.tasks.length));
  if (leaves.size > 0) {
    lines.push(
      hit.size === 0 && known
        ? trans._n("%1 leaf, gradient right", "%1 leaves, all gradients right", leaves.size)
        : trans._n("%1 leaf", "%1 leaves", leaves.size) + ", " + trans.__("%1 of them hit", hit.size),
    );
  }
  if (proved > 0) lines.push(trans._n("%1 proved fix below", "%1 proved fixes below", proved));
  return lines;
}

/** One sentence that says what happened; of a clean cell, the one line that unfolds the rest. */
export function Verdict({
  quiet,
  open,
  onToggle,
}: {
  quiet: boolean;
  open: boolean;
  onToggle: () => void;
}): JSX.Element {
  const { report, trans, host } = usePanel();
  const kind = tone(report.verdict);
  const lines = facts(report, trans);
  const attributes = { "data-ji": "verdict", "data-ji-verdict": report.verdict };
  if (quiet) {
    return (
      <div class={`ji-quiet ji-tone-${kind}`} {...attributes}>
        <button type="button" class="ji-quiet-button" aria-expanded={open} onClick={onToggle}>
          <Icon name={kind} />
          <span class="ji-quiet-text">
            <Sentence text={report.summary || trans.__("No in-place write hurts a gradient.")} />
          </span>
          <span class="ji-muted ji-quiet-facts">{lines.slice(1).join(" · ")}</span>
          <Icon name="open" />
        </button>
      </div>
    );
  }
  return (
    <header class={`ji-verdict ji-tone-${kind}`} {...attributes}>
      <Icon name={kind} />
      <div class="ji-verdict-text">
        <p class="ji-sentence" role="heading" aria-level={2}>
          <Sentence text={report.summary} />
        </p>
        <p class="ji-muted">
          {report.rank !== null && <span>{trans.__("rank %1", report.rank)} · </span>}
          {lines.join(" · ")}
        </p>
        {report.error !== null && report.error.message !== "" && (
          <details class="ji-error">
            <summary>{trans.__("what Python said: %1", visible(report.error.type))}</summary>
            <pre>{visible(report.error.message)}</pre>
          </details>
        )}
        {host.stale === true && (
          <p class="ji-stale" data-ji="stale" role="status">
            {host.applied == null
              ? trans.__("The cell has changed since this run. Run it again for a new report.")
              : trans.__("The cell is rewritten. Run it for a new report.")}
          </p>
        )}
      </div>
    </header>
  );
}
