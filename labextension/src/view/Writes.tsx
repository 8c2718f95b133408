import type { JSX } from "preact";
import { useState } from "preact/hooks";

import type { Sources } from "../host/protocol";
import { harmful, isHarmful, ofConflict, ofMutation } from "../model/selection";
import { inThisCell } from "../model/source";
import type { Conflict, Mutation, Report, Site } from "../report/types";
import { bytes, count, opName, place, tensorType, versionStep, visible, type Trans } from "../report/words";
import { usePanel } from "./context";
import { Code, Icon, rangeOf, Task, type Underline } from "./rich";
import { tone } from "./Verdict";

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

function Write({ mutation }: { mutation: Mutation }): JSX.Element {
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

export function verdictWord(mutation: Mutation, trans: Trans): string {
  const words: Record<Mutation["verdict"], string> = {
    rejected: trans.__("rejected"),
    breaks: trans.__("breaks"),
    corrupts: trans.__("corrupts"),
    cuts: trans.__("cuts"),
    mixes: trans.__("mixes"),
    harmless: trans.__("harmless"),
  };
  return words[mutation.verdict] + (mutation.pending ? ` · ${trans.__("pending")}` : "");
}

function WriteFacts({ mutation }: { mutation: Mutation }): JSX.Element {
  const { trans } = usePanel();
  const parts = [
    `${opName(mutation.op)} · ${mutation.tensor} · ${tensorType(mutation)}`,
    mutation.device === "cpu" ? "" : mutation.device,
    mutation.site?.function !== undefined && !/^(<|$)/.test(mutation.site.function)
      ? trans.__("in %1", mutation.site.function)
      : "",
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

interface SourceLine {
  site: Site;
  text: string;
  label: string;
  order: number;
  marks: Underline[];
  notes: { text: string; conflict: Conflict | null }[];
  isWrite: boolean;
}

/** The lines that matter, in the order of the source, each once. */
function sourceLines(
  mutation: Mutation,
  conflicts: readonly Conflict[],
  report: Report,
  trans: Trans,
  sources: Sources,
  add: (conflict: Conflict | null) => { active: boolean; onPick: () => void },
): SourceLine[] {
  const lines = new Map<string, SourceLine>();
  const lineOf = (site: Site): SourceLine => {
    const own = inThisCell(site, report);
    const key = `${site.file}:${site.line}`;
    let line = lines.get(key);
    if (line === undefined) {
      const text = own
        ? (report.cell?.source.split("\n")[site.line - 1] ?? site.line_text)
        : site.line_text || site.text;
      line = {
        site,
        text: text.replace(/^\s+/, (indent) => (own ? indent : "")),
        label: own ? String(site.line) : place(site, trans),
        order: (site.cell_line ?? 1e6) + site.line / 1e6,
        marks: [],
        notes: [],
        isWrite: false,
      };
      lines.set(key, line);
    }
    return line;
  };
  for (const conflict of conflicts) {
    if (conflict.saved_site === null) continue;
    const site = told(conflict.saved_site, sources);
    const line = lineOf(site);
    const label = savedNote(conflict, trans);
    line.marks.push({ ...rangeOf(line.text, site), kind: "save", label, ...add(conflict) });
    line.notes.push({ text: label, conflict });
  }
  if (mutation.site !== null) {
    const site = told(mutation.site, sources);
    const line = lineOf(site);
    line.isWrite = true;
    const label = writeNote(mutation, trans);
    line.marks.push({ ...rangeOf(line.text, site), kind: "write", label, ...add(null) });
    line.notes.push({ text: label, conflict: null });
  }
  const shown = [...lines.values()].sort((a, b) => a.order - b.order);
  return dedent(shown);
}

// Lines of a deep block move left together.
function dedent(lines: SourceLine[]): SourceLine[] {
  const indent = Math.min(...lines.map((line) => line.text.length - line.text.trimStart().length));
  if (indent === 0 || !Number.isFinite(indent)) return lines;
  return lines.map((line) => ({
    ...line,
    text: line.text.slice(indent),
    marks: line.marks.map((mark) => ({ ...mark, start: mark.start - indent, end: mark.end - indent })),
  }));
}

function savedNote(conflict: Conflict, trans: Trans): string {
  const version =
    conflict.saved_version === null ? "" : `, ${trans.__("version %1", conflict.saved_version)}`;
  const owner = conflict.module === null ? "" : ` · ${conflict.module}`;
  const size = conflict.bytes_overlapping === null ? "" : ` · ${bytes(conflict.bytes_overlapping)}`;
  const what =
    conflict.saved_as === "result"
      ? trans.__("%1 saved its result", conflict.node)
      : conflict.saved_as === ""
        ? trans.__("%1 saved it", conflict.node)
        : trans.__("%1 saved %2", conflict.node, conflict.saved_as);
  return `${what}${version}${owner}${size}`;
}

function writeNote(mutation: Mutation, trans: Trans): string {
  const step = versionStep(mutation.versions);
  const same = mutation.versions !== null && mutation.versions[0] === mutation.versions[1];
  if (mutation.verdict === "rejected") return trans.__("torch refuses this write");
  if (same) return trans.__("%1, torch did not count it", step);
  return step === "" ? trans.__("written here") : trans.__("written, %1", step);
}

/** The site with the text that the kernel told, where the report itself may not carry it. */
function told(site: Site, sources: Sources): Site {
  const known = sources[`${site.file}:${site.line}`];
  return known === undefined || site.text !== "" ? site : { ...site, ...known };
}

function AskForSource({ sites }: { sites: readonly (Site | null)[] }): JSX.Element | null {
  const { trans, sources, askSources } = usePanel();
  const [message, setMessage] = useState("");
  const missing = sites.some((site) => site !== null && told(site, sources).text === "");
  if (!missing || askSources === null) return null;
  return (
    <p class="ji-muted">
      <button
        type="button"
        class="ji-link"
        data-ji="ask-source"
        onClick={() => {
          void askSources().then((outcome) => {
            setMessage(
              outcome.ok ? "" : outcome.message || trans.__("The kernel does not know these lines any more."),
            );
          });
        }}
      >
        {trans.__("show the lines of other files")}
      </button>{" "}
      <span role="status">{visible(message)}</span>
    </p>
  );
}

function Source({
  mutation,
  conflicts,
}: {
  mutation: Mutation;
  conflicts: readonly Conflict[];
}): JSX.Element | null {
  const { report, selection, select, trans, sources } = usePanel();
  const lines = sourceLines(mutation, conflicts, report, trans, sources, (conflict) => ({
    active: conflict === null ? selection.conflict === null : selection.conflict === conflict.id,
    onPick() {
      select(conflict === null ? ofMutation(mutation.id) : ofConflict(conflict));
    },
  }));
  if (lines.length === 0) return null;
  return (
    <div class="ji-source" data-ji="source" role="list">
      {lines.map((line, i) => {
        const before = lines[i - 1];
        const gap = before !== undefined && line.order - before.order > 1.5;
        return (
          <div
            key={`${line.site.file}:${line.site.line}`}
            class={`ji-line${line.isWrite ? " ji-line-write" : ""}${gap ? " ji-line-gap" : ""}`}
            role="listitem"
            data-ji-line={line.site.line}
          >
            <span class="ji-number">{line.label}</span>
            <Code text={line.text} marks={line.marks} />
            <span class="ji-notes">
              {line.notes.map((note, n) =>
                note.conflict === null ? (
                  <span key={n} class="ji-note">
                    {visible(note.text)}
                  </span>
                ) : (
                  <button
                    key={n}
                    type="button"
                    class="ji-note ji-note-save"
                    data-ji="conflict"
                    data-ji-id={note.conflict.id}
                    aria-pressed={selection.conflict === note.conflict.id}
                    onClick={() => {
                      if (note.conflict !== null) select(ofConflict(note.conflict));
                    }}
                  >
                    {visible(note.text)}
                  </button>
                ),
              )}
            </span>
          </div>
        );
      })}
    </div>
  );
}

/** What wrote: the expression; where a report may not carry it (code of another file), the operation. */
function expression(mutation: Mutation): string {
  const text = mutation.site?.text ?? "";
  return text === "" ? opName(mutation.op) : text;
}
