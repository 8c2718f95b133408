import type { JSX } from "preact";

import { isHarmful, ofMutation } from "../../model/selection";
import type { Mutation } from "../../report/types";
import { count, place, visible } from "../../report/words";
import { usePanel } from "../context";
import { Icon } from "../rich";
import { tone } from "../Verdict";
import { AskForSource, Source } from "./Source";
import { expression, verdictWord } from "./words";
import { WriteFacts } from "./WriteFacts";

/** One write: a line, and where it is selected its source and what is known of it. */
export function Write({ mutation }: { mutation: Mutation }): JSX.Element {
  const { report, selection, select, trans } = usePanel();
  const selected = selection.mutation === mutation.id;
  const conflicts = report.conflicts.filter((conflict) => conflict.mutation === mutation.id);
  const kind = tone(mutation.verdict);
  return (
    <article
      class="ji-write"
      data-ji="mutation"
      data-ji-id={mutation.id}
      data-ji-verdict={mutation.verdict}
      data-ji-selected={selected}
    >
      <button
        type="button"
        class="ji-write-head"
        aria-expanded={selected}
        onClick={() => {
          select(
            selected && !isHarmful(mutation)
              ? { ...ofMutation(mutation.id), mutation: null }
              : ofMutation(mutation.id),
          );
        }}
      >
        <span class={`ji-chip ji-tone-${kind}`}>
          <Icon name={kind} />
          {verdictWord(mutation, trans)}
        </span>
        <code class="ji-write-text">{visible(expression(mutation))}</code>
        <span class="ji-muted">{place(mutation.site, trans)}</span>
        {mutation.count > 1 && <span class="ji-muted">×{count(mutation.count)}</span>}
      </button>
      {selected && (
        <>
          <Source mutation={mutation} conflicts={conflicts} />
          <AskForSource sites={[mutation.site, ...conflicts.map((conflict) => conflict.saved_site)]} />
          <p class="ji-facts">
            <WriteFacts mutation={mutation} />
          </p>
        </>
      )}
    </article>
  );
}
