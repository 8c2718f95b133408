import type { JSX } from "preact";

import { NOTHING } from "../../model/selection";
import { pairKey, type Order, type Row } from "../../model/table";
import { cosine, visible } from "../../report/words";
import { usePanel } from "../context";
import { Task } from "../rich";
import { Cell } from "./Cell";

/** One row per leaf: a column per task, then one per pair of tasks. A click on a head sorts. */
export function Table(props: {
  tasks: string[];
  pairs: [string, string][];
  rows: readonly Row[];
  order: Order;
  onOrder: (order: Order) => void;
  /** The filter that no leaf matches; null where there are rows. */
  none: string | null;
}): JSX.Element {
  const { trans } = usePanel();
  const { tasks, pairs, rows, order } = props;
  const sortBy = (by: "leaf" | "task" | "pair", key: string): void => {
    const down = order?.by === by && order.key === key ? !order.down : by === "task";
    props.onOrder({ by, key, down });
  };
  const sorted = (by: string, key: string): "ascending" | "descending" | "none" =>
    order?.by === by && order.key === key ? (order.down ? "descending" : "ascending") : "none";
  return (
    <div class="ji-scroll" tabIndex={0} role="group" aria-label={trans.__("Gradient table")}>
      <table class="ji-table">
        <thead>
          <tr>
            <SortHeader
              label={trans.__("leaf")}
              sort={sorted("leaf", "")}
              onSort={() => {
                sortBy("leaf", "");
              }}
            />
            {tasks.map((task) => (
              <SortHeader
                key={task}
                label={<Task name={task} />}
                sort={sorted("task", task)}
                onSort={() => {
                  sortBy("task", task);
                }}
              />
            ))}
            {pairs.map((pair) => (
              <SortHeader
                key={pairKey(pair)}
                label={trans.__("cos(%1, %2)", visible(pair[0]), visible(pair[1]))}
                sort={sorted("pair", pairKey(pair))}
                onSort={() => {
                  sortBy("pair", pairKey(pair));
                }}
              />
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <TableRow key={row.leaf} row={row} tasks={tasks} pairs={pairs} />
          ))}
          {props.none !== null && (
            <tr>
              <td class="ji-muted" colSpan={1 + tasks.length + pairs.length}>
                {trans.__("No leaf is called “%1”.", props.none)}
              </td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

function SortHeader(props: {
  label: JSX.Element | string;
  sort: "ascending" | "descending" | "none";
  onSort: () => void;
}): JSX.Element {
  return (
    <th scope="col" aria-sort={props.sort}>
      <button type="button" class="ji-sort" onClick={props.onSort}>
        {props.label}
        <span class="ji-arrow" aria-hidden="true">
          {props.sort === "ascending" ? "▲" : props.sort === "descending" ? "▼" : ""}
        </span>
      </button>
    </th>
  );
}

function TableRow({
  row,
  tasks,
  pairs,
}: {
  row: Row;
  tasks: string[];
  pairs: [string, string][];
}): JSX.Element {
  const { selection, select } = usePanel();
  return (
    <tr data-ji="gradient-row" data-ji-id={row.leaf} data-ji-selected={selection.leaf === row.leaf}>
      <th scope="row">
        <button
          type="button"
          class="ji-leaf"
          title={visible(row.leaf)}
          onClick={() => {
            select({ ...NOTHING, mutation: selection.mutation, leaf: row.leaf });
          }}
        >
          <bdi>{visible(row.leaf)}</bdi>
        </button>
      </th>
      {tasks.map((task) => {
        const item = row.cells.get(task);
        return item === undefined ? (
          <td key={task} class="ji-none">
            –
          </td>
        ) : (
          <Cell key={task} item={item} />
        );
      })}
      {pairs.map((pair) => {
        const item = row.cosines.get(pairKey(pair));
        const differs = item?.as_run != null && item.reference !== null && item.as_run !== item.reference;
        return (
          <td key={pairKey(pair)} data-ji="cosine" data-ji-tasks={pair.join(" ")} data-ji-leaf={row.leaf}>
            {item === undefined ? (
              "–"
            ) : differs ? (
              <>
                <s>{cosine(item.as_run)}</s> <b>{cosine(item.reference)}</b>
              </>
            ) : (
              <b>{cosine(item.reference ?? item.as_run)}</b>
            )}
          </td>
        );
      })}
    </tr>
  );
}
