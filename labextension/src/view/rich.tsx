// Text from the report, drawn as text nodes only.

import type { ComponentChildren, JSX } from "preact";
import { useMemo } from "preact/hooks";

import { findInLine, tokens, type Range } from "../model/source";
import type { Report, Site } from "../report/types";
import { visible } from "../report/words";
import { usePanel } from "./context";

/** A sentence in which `backticks`, and every name or expression that the report knows, set code. */
export function Sentence({ text }: { text: string }): JSX.Element {
  const { report } = usePanel();
  const known = useMemo(() => knownCode(report), [report]);
  return (
    <>
      {splitCode(text, known).map((part, i) =>
        part.code ? <code key={i}>{visible(part.text)}</code> : visible(part.text),
      )}
    </>
  );
}

/** The expressions and names that sentences about this report may quote, longest first. */
export function knownCode(report: Report): string[] {
  const found = new Set<string>();
  const add = (text: string | undefined): void => {
    if (text !== undefined && text.length > 0 && text.length < 200 && !text.includes("\n")) found.add(text);
  };
  for (const mutation of report.mutations.slice(0, MANY)) {
    add(mutation.site?.text);
    add(mutation.tensor);
    mutation.leaves.forEach(add);
  }
  for (const conflict of report.conflicts.slice(0, MANY)) {
    add(conflict.saved_site?.text);
    add(conflict.module ?? undefined);
    conflict.leaves.forEach(add);
  }
  for (const task of report.tasks) add(task.name);
  return [...found].sort((a, b) => b.length - a.length);
}

const MANY = 100;

/** Cuts a sentence at backticks and at known code that stands as a word of its own. */
export function splitCode(text: string, known: readonly string[]): { text: string; code: boolean }[] {
  const parts: { text: string; code: boolean }[] = [];
  text.split(/`([^`]+)`/).forEach((piece, i) => {
    if (i % 2 === 1) parts.push({ text: piece, code: true });
    else parts.push(...splitKnown(piece, known));
  });
  return parts.filter((part) => part.text !== "");
}

function splitKnown(text: string, known: readonly string[]): { text: string; code: boolean }[] {
  // One-letter words of English are names only where they stand before a verb of ours; leave them as they are.
  const wanted = known.filter((name) => name !== "a" && name !== "I" && text.includes(name));
  if (wanted.length === 0) return [{ text, code: false }];
  const escaped = wanted.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pattern = new RegExp(`(?<![\\w.])(${escaped.join("|")})(?![\\w])`);
  return text.split(pattern).map((piece, i) => ({ text: piece, code: i % 2 === 1 }));
}

export function Task({ name }: { name: string }): JSX.Element {
  const { taskColour } = usePanel();
  return (
    <code class="ji-task" data-ji-colour={taskColour(name)}>
      {visible(name)}
    </code>
  );
}

export interface Underline extends Range {
  kind: "write" | "save";
  active: boolean;
  onPick: () => void;
  label: string;
}

/** A line of Python, coloured, with expressions underlined. Underlines may lie within each other. */
export function Code({ text, marks = [] }: { text: string; marks?: readonly Underline[] }): JSX.Element {
  const cuts = new Set([0, text.length]);
  for (const mark of marks) cuts.add(mark.start).add(mark.end);
  const pieces: ComponentChildren[] = [];
  const points = [...cuts].filter((at) => at >= 0 && at <= text.length).sort((a, b) => a - b);
  points.forEach((from, i) => {
    const to = points[i + 1];
    if (to === undefined) return;
    const coloured = colour(text, from, to);
    // The innermost expression gets the click; the outer ones keep their line.
    const over = marks
      .filter((mark) => mark.start <= from && mark.end >= to)
      .sort((a, b) => a.end - a.start - (b.end - b.start));
    const [inner] = over;
    if (inner === undefined) {
      pieces.push(<span key={from}>{coloured}</span>);
      return;
    }
    const kinds = new Set(over.map((mark) => mark.kind));
    pieces.push(
      <span
        key={from}
        class={["ji-under", ...[...kinds].map((kind) => `ji-under-${kind}`)].join(" ")}
        data-ji-active={over.some((mark) => mark.active)}
        title={inner.label}
        onClick={inner.onPick}
      >
        {coloured}
      </span>,
    );
  });
  return <code class="ji-code">{pieces}</code>;
}

function colour(text: string, from: number, to: number): ComponentChildren {
  const pieces: ComponentChildren[] = [];
  let at = 0;
  for (const token of tokens(text)) {
    const start = Math.max(at, from);
    const end = Math.min(at + token.text.length, to);
    if (start < end) {
      const piece = visible(text.slice(start, end));
      pieces.push(token.kind === "plain" ? piece : <span class={`ji-py-${token.kind}`}>{piece}</span>);
    }
    at += token.text.length;
  }
  return pieces;
}

export function rangeOf(lineText: string, site: Site): Range {
  return findInLine(lineText, site);
}

/** Icons as shapes, so that nothing is told by colour alone. */
export function Icon({
  name,
}: {
  name: "error" | "warning" | "note" | "fine" | "busy" | "open";
}): JSX.Element {
  const paths: Record<typeof name, JSX.Element> = {
    error: (
      <>
        <path d="M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2l-3.7-3.7V5.2z" fill="currentColor" />
        <path d="M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8" stroke="var(--ji-ground)" stroke-width="1.7" />
      </>
    ),
    warning: (
      <>
        <path d="M8 1.4l7 12.6H1z" fill="currentColor" stroke="currentColor" stroke-linejoin="round" />
        <path d="M8 5.6v4M8 11.2v1.5" stroke="var(--ji-ground)" stroke-width="1.7" />
      </>
    ),
    note: (
      <>
        <circle cx="8" cy="8" r="6.7" fill="currentColor" />
        <path d="M8 7v4.6M8 4.2v1.6" stroke="var(--ji-ground)" stroke-width="1.7" />
      </>
    ),
    fine: <path d="M3 8.6l3.4 3.4L13 4.6" fill="none" stroke="currentColor" stroke-width="1.9" />,
    busy: (
      <circle
        cx="8"
        cy="8"
        r="5.6"
        fill="none"
        stroke="currentColor"
        stroke-width="2"
        stroke-dasharray="22 14"
        class="ji-spin"
      />
    ),
    open: <path d="M6 4l4 4-4 4" fill="none" stroke="currentColor" stroke-width="1.6" />,
  };
  return (
    <svg class={`ji-icon ji-icon-${name}`} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      {paths[name]}
    </svg>
  );
}
