import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";

import { buildTable, filterRows, sortRows, type Order } from "../../model/table";
import { count } from "../../report/words";
import { usePanel } from "../context";
import { CosineMatrix } from "./CosineMatrix";
import { Detail } from "./Detail";
import { Table } from "./Table";

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
      <Table
        tasks={table.tasks}
        pairs={pairs}
        rows={rows.slice(0, shown)}
        order={order}
        onOrder={setOrder}
        none={rows.length === 0 ? filter : null}
      />
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
