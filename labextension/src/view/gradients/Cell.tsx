import type { JSX } from "preact";

import { ofGradient, touchesGradient } from "../../model/selection";
import { shade } from "../../model/table";
import type { Gradient } from "../../report/types";
import { cosine, number, percent } from "../../report/words";
import { usePanel } from "../context";
import { describe, statusWord } from "./words";

/** One gradient: its status, and how far it is from the reference. */
export function Cell({ item }: { item: Gradient }): JSX.Element {
  const { report, selection, select, trans } = usePanel();
  const hot = touchesGradient(selection, item, report);
  return (
    <td
      class={`ji-cell ji-status-${item.status}`}
      style={{ "--ji-shade": `${Math.round(shade(item) * 100)}%` }}
      data-ji="gradient"
      data-ji-task={item.task}
      data-ji-leaf={item.leaf}
      data-ji-status={item.status}
      data-ji-selected={hot}
    >
      <button
        type="button"
        class="ji-cell-button"
        aria-pressed={selection.leaf === item.leaf && selection.task === item.task}
        title={describe(item, trans)}
        onClick={() => {
          select(ofGradient(item, report));
        }}
      >
        <span class="ji-badge">{statusWord(item.status, trans)}</span>{" "}
        {item.status === "wrong" && item.relative_difference !== null ? (
          <span class="ji-value" data-ji="relative-difference">
            {percent(item.relative_difference)}
          </span>
        ) : (
          <span class="ji-value ji-norm" data-ji="norm">
            {item.norm_reference === null ? number(item.norm_as_run) : number(item.norm_reference)}
          </span>
        )}
        {item.status === "wrong" && item.cosine !== null && " "}
        {item.status === "wrong" && item.cosine !== null && (
          <span class="ji-value ji-small" data-ji="row-cosine">
            cos {cosine(item.cosine)}
          </span>
        )}
      </button>
    </td>
  );
}
