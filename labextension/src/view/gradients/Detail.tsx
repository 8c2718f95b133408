import type { JSX } from "preact";

import type { Gradient } from "../../report/types";
import { cosine, number, visible } from "../../report/words";
import { usePanel } from "../context";
import { Task } from "../rich";
import { statusWord } from "./words";

/** All numbers of the chosen gradient, below the table. */
export function Detail({ row }: { row: Gradient }): JSX.Element {
  const { trans } = usePanel();
  return (
    <p class="ji-detail" data-ji="gradient-detail" role="status">
      <Task name={row.task} /> → <code>{visible(row.leaf)}</code>: {statusWord(row.status, trans)} ·{" "}
      {trans.__("norm as run %1", number(row.norm_as_run))} ·{" "}
      {trans.__("reference %1", number(row.norm_reference))}
      {row.relative_difference !== null && (
        <> · {trans.__("relative difference %1", number(row.relative_difference))}</>
      )}
      {row.cosine !== null && <> · {trans.__("cosine %1", cosine(row.cosine))}</>}
      {row.occurrence !== null && <> · {trans.__("worst in iteration %1", row.occurrence)}</>}
      {row.by_version.map((part) => (
        <span key={part.version}>
          {" · "}
          {trans.__("read at v%1: norm %2", part.version, number(part.norm))}
        </span>
      ))}
    </p>
  );
}
