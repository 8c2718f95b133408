import type { JSX } from "preact";

import type { Mutation } from "../../report/types";
import { opName, tensorType, visible, type Trans } from "../../report/words";
import { usePanel } from "../context";
import { Task } from "../rich";

/** What was written, and what it hits. */
export function WriteFacts({ mutation }: { mutation: Mutation }): JSX.Element {
  const { trans } = usePanel();
  const name = mutation.site?.function ?? "";
  const parts = [
    `${opName(mutation.op)} · ${mutation.tensor} · ${tensorType(mutation)}`,
    mutation.device === "cpu" ? null : mutation.device,
    /^[^<]/.test(name) ? trans.__("in %1", name) : "",
    mutation.value_changed === false && mutation.verdict === "breaks"
      ? trans.__("value unchanged: torch is over-careful here")
      : "",
    mutation.note ?? "",
  ].filter(Boolean);
  return (
    <>
      <span>{visible(parts.join(" · "))}</span>
      {mutation.tasks.length > 0 && (
        <span>
          {trans.__("hits")}{" "}
          {mutation.tasks.map((task, i) => (
            <span key={task}>
              {i > 0 && ", "}
              <Task name={task} />
            </span>
          ))}
          {mutation.leaves.length > 0 && (
            <>
              {" "}
              {trans.__("through")} <code>{visible(shortList(mutation.leaves, trans))}</code>
            </>
          )}
        </span>
      )}
    </>
  );
}

function shortList(names: readonly string[], trans: Trans): string {
  const shown = names.slice(0, 4).join(", ");
  return names.length > 4 ? `${shown} ${trans.__("and %1 more", names.length - 4)}` : shown;
}
