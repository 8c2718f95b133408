import type { JSX } from "preact";
import { useState } from "preact/hooks";

import type { Outcome } from "../../host/protocol";
import type { Fix } from "../../report/types";
import { visible } from "../../report/words";
import { usePanel } from "../context";
import { Icon } from "../rich";

/** The buttons of a rewrite, and what came of the last one that was pressed. */
export function Actions({ fix, primary }: { fix: Fix; primary: boolean }): JSX.Element {
  const { host, apply, undo, trans } = usePanel();
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [busy, setBusy] = useState(false);
  const status = fix.verification.status;
  const applied = host.applied === fix.id;
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
  );
}
