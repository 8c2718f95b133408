import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";

import { ofGradient, NOTHING, touchesGradient } from "../model/selection";
import { buildTable, filterRows, pairKey, shade, sortRows, type Order, type Row } from "../model/table";
import type { Gradient } from "../report/types";
import { cosine, count, number, percent, visible, type Trans } from "../report/words";
import { usePanel } from "./context";
import { Task } from "./rich";

const PAGE = 12;
const FILTER_FROM = 9;
const PAIR_COLUMNS = 3;

/** Leaves by tasks: what the program gets, against the gradient of the values that forward used. */
export function Gradients(): JSX.Element | null {
  const { report, trans, selection } = usePanel();
  const [order, setOrder] = useState<Order>(null);
  const [filter, setFilter] = useState("");
  const [shown, setShown] = useState(PAGE);
  const table = useMemo(() => buildTable(report), [report]);
  const rows = useMemo(() => sortRows(filterRows(table.rows, filter), order), [table, filter, order]);
  if (table.rows.length === 0) return null;
  const pairs = table.pairs.length <= PAIR_COLUMNS ? table.pairs : [];
  const visibleRows = rows.slice(0, shown);
  const sortBy = (by: "leaf" | "task" | "pair", key: string): void => {
    const down = order?.by === by && order.key === key ? !order.down : by === "task";
    setOrder({ by, key, down });
  };
  const sorted = (by: string, key: string): "ascending" | "descending" | "none" =>
    order?.by === by && order.key === key ? (order.down ? "descending" : "ascending") : "none";
  const chosen = report.gradients.find((row) => row.task === selection.task && row.leaf === selection.leaf);
  return (
    <section class="ji-section" data-ji="gradients" aria-label={trans.__("Gradients")}>
      <div class="ji-head">
        <h3>{trans.__("Gradients, leaf by task")}</h3>
        {table.rows.length >= FILTER_FROM ? (
          <input
            class="ji-filter"
            type="search"
            placeholder={trans.__("filter %1 leaves", table.rows.length)}
            aria-label={trans.__("Filter leaves by name")}
            value={filter}
            onInput={(event) => {
              setFilter(event.currentTarget.value);
            }}
          />
        ) : (
          <span class="ji-hint">
            {trans.__("as run, against the gradient of the values that forward used")}
          </span>
        )}
      </div>
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
              {table.tasks.map((task) => (
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
            {visibleRows.map((row) => (
              <TableRow key={row.leaf} row={row} tasks={table.tasks} pairs={pairs} />
            ))}
            {rows.length === 0 && (
              <tr>
                <td class="ji-muted" colSpan={1 + table.tasks.length + pairs.length}>
                  {trans.__("No leaf is called “%1”.", filter)}
                </td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
      {rows.length > shown && (
        <p class="ji-more">
          <button
            type="button"
            class="ji-link"
            onClick={() => {
              setShown(shown + 100);
            }}
          >
            {trans.__("show more leaves (%1 of %2 shown)", count(shown), count(rows.length))}
          </button>
        </p>
      )}
      {chosen !== undefined && <Detail row={chosen} />}
      {table.pairs.length > PAIR_COLUMNS && <CosineMatrix rows={table.rows} tasks={table.tasks} />}
    </section>
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

export function statusWord(status: Gradient["status"], trans: Trans): string {
  switch (status) {
    case "ok":
      return trans.__("equal");
    case "raises":
      return trans.__("raises");
    case "wrong":
      return trans.__("wrong");
    case "lost":
      return trans.__("lost");
  }
}

function Cell({ item }: { item: Gradient }): JSX.Element {
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

function describe(item: Gradient, trans: Trans): string {
  const parts = [
    `${visible(item.task)} → ${visible(item.leaf)}: ${statusWord(item.status, trans)}`,
    trans.__("norm as run %1, reference %2", number(item.norm_as_run), number(item.norm_reference)),
  ];
  if (item.relative_difference !== null) {
    parts.push(trans.__("relative difference %1", number(item.relative_difference)));
  }
  if (item.cosine !== null) parts.push(trans.__("cosine %1", cosine(item.cosine)));
  return parts.join("\n");
}

function Detail({ row }: { row: Gradient }): JSX.Element {
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

/** Tasks by tasks, for the selected leaf or the first that several tasks share. */
function CosineMatrix({
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
