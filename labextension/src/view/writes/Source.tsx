import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { ofConflict, ofMutation } from "../../model/selection";
import type { Conflict, Mutation, Site } from "../../report/types";
import { visible } from "../../report/words";
import { usePanel } from "../context";
import { Code } from "../rich";
import { sourceLines, told } from "./sourceLines";

/** The source of a write, with the expressions whose values it overwrote. */
export function Source({
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

/** Asks for lines that a saved report does not carry. */
export function AskForSource({ sites }: { sites: readonly (Site | null)[] }): JSX.Element | null {
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
