import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { harmful, isHarmful } from "../../model/selection";
import type { Mutation } from "../../report/types";
import { count } from "../../report/words";
import { usePanel } from "../context";
import { Write } from "./Write";

/** The writes: the harmful ones with their source beside what they overwrote, the others folded. */
export function Writes(): JSX.Element | null {
  const { report, trans } = usePanel();
  const bad = harmful(report);
  const rest = report.mutations.filter((mutation) => !isHarmful(mutation));
  if (report.mutations.length === 0) return null;
  return (
    <section class="ji-section" data-ji="writes" aria-label={trans.__("Writes")}>
      <div class="ji-head">
        <h3>{bad.length > 1 ? trans.__("The writes") : trans.__("The write")}</h3>
        {bad.length > 1 && <span class="ji-hint">{trans.__("Shift+F8 next")}</span>}
      </div>
      {bad.map((mutation) => (
        <Write key={mutation.id} mutation={mutation} />
      ))}
      {rest.length > 0 && <Harmless mutations={rest} />}
    </section>
  );
}

const MANY = 60;

function Harmless({ mutations }: { mutations: readonly Mutation[] }): JSX.Element {
  const { trans } = usePanel();
  // Rows are made when they are asked for: a training loop has many.
  const [open, setOpen] = useState(false);
  const shown = open ? mutations.slice(0, MANY) : [];
  return (
    <details
      class="ji-harmless"
      onToggle={(event) => {
        setOpen(event.currentTarget.open);
      }}
    >
      <summary>{trans._n("%1 harmless write", "%1 harmless writes", mutations.length)}</summary>
      {shown.map((mutation) => (
        <Write key={mutation.id} mutation={mutation} />
      ))}
      {open && shown.length < mutations.length && (
        <p class="ji-muted">{trans.__("and %1 more", count(mutations.length - shown.length))}</p>
      )}
    </details>
  );
}
