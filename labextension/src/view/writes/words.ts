// How writes, and what they overwrote, are said.

import type { Conflict, Mutation } from "../../report/types";
import { bytes, opName, versionStep, type Trans } from "../../report/words";

/** A verdict that has no translation here is said as the contract says it. */
export function verdictWord(mutation: Mutation, trans: Trans): string {
  const words: Partial<Record<Mutation["verdict"], string>> = {
    rejected: trans.__("rejected"),
    breaks: trans.__("breaks"),
    corrupts: trans.__("corrupts"),
    cuts: trans.__("cuts"),
    unknown: trans.__("unknown"),
    mixes: trans.__("mixes"),
    harmless: trans.__("harmless"),
  };
  const word = words[mutation.verdict] ?? mutation.verdict;
  return word + (mutation.pending ? ` · ${trans.__("pending")}` : "");
}

/** What wrote: the expression; where a report may not carry it (code of another file), the operation. */
export function expression(mutation: Mutation): string {
  const text = mutation.site?.text ?? "";
  return text === "" ? opName(mutation.op) : text;
}

/** What a node saved, beside the expression that it saved. */
export function savedNote(conflict: Conflict, trans: Trans): string {
  const version =
    conflict.saved_version === null ? "" : `, ${trans.__("version %1", conflict.saved_version)}`;
  const owner = conflict.module === null ? "" : ` · ${conflict.module}`;
  const size = conflict.bytes_overlapping === null ? "" : ` · ${bytes(conflict.bytes_overlapping)}`;
  const what =
    conflict.saved_as === "result"
      ? trans.__("%1 saved its result", conflict.node)
      : conflict.saved_as === null || conflict.saved_as === ""
        ? trans.__("%1 saved it", conflict.node)
        : trans.__("%1 saved %2", conflict.node, conflict.saved_as);
  return `${what}${version}${owner}${size}`;
}

/** What is said beside the write itself. */
export function writeNote(mutation: Mutation, trans: Trans): string {
  const step = versionStep(mutation.versions);
  const same = mutation.versions !== null && mutation.versions[0] === mutation.versions[1];
  if (mutation.verdict === "rejected") return trans.__("torch refuses this write");
  if (same) return trans.__("%1, torch did not count it", step);
  return step === "" ? trans.__("written here") : trans.__("written, %1", step);
}
