import type { JSX } from "preact";

import { pairKey, type Row } from "../../model/table";
import { cosine, visible } from "../../report/words";
import { usePanel } from "../context";
import { Task } from "../rich";

/** Tasks by tasks, for the selected leaf or the first that several tasks share. */
export function CosineMatrix({
  rows,
  tasks,
}: {
  rows: readonly Row[];
  tasks: readonly string[];
}): JSX.Element | null {
  const { selection, trans } = usePanel();
  const row =
    rows.find((item) => item.leaf === selection.leaf && item.cosines.size > 0) ??
    rows.find((item) => item.cosines.size > 0);
  if (row === undefined) return null;
  const value = (a: string, b: string): number | null => {
    const item = row.cosines.get(pairKey([a, b])) ?? row.cosines.get(pairKey([b, a]));
    return item === undefined ? null : (item.reference ?? item.as_run);
  };
  return (
    <div class="ji-scroll ji-cosines" tabIndex={0} role="group" aria-label={trans.__("Cosines of the tasks")}>
      <table class="ji-table ji-matrix" data-ji="cosines" data-ji-leaf={row.leaf}>
        <caption>
          {trans.__("Cosines between the tasks’ gradients of")} <code>{visible(row.leaf)}</code>
        </caption>
        <thead>
          <tr>
            <td />
            {tasks.map((task) => (
              <th key={task} scope="col">
                <Task name={task} />
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {tasks.map((a, i) => (
            <tr key={a}>
              <th scope="row">
                <Task name={a} />
              </th>
              {tasks.map((b, j) => {
                const number_ = i === j ? 1 : value(a, b);
                return (
                  <td
                    key={b}
                    class={number_ !== null && number_ < 0 ? "ji-opposed" : "ji-agreed"}
                    style={{ "--ji-shade": `${Math.round(Math.abs(number_ ?? 0) * 60)}%` }}
                  >
                    {i === j ? "·" : cosine(number_)}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
