// How a rewrite and its proof are said.

import type { Fix, FixStatus, Reading } from "../../report/types";
import { bytes, type Trans } from "../../report/words";

export function statusName(status: FixStatus, trans: Trans): string {
  switch (status) {
    case "passed":
      return trans.__("proved");
    case "failed":
      return trans.__("fails");
    case "unverified":
      return trans.__("not proved");
    case "proving":
      return trans.__("being tried");
  }
}

export function readingName(reading: Reading, trans: Trans): string {
  switch (reading) {
    case "update":
      return trans.__("the leaf itself takes the new value");
    case "copy":
      return trans.__("a new tensor goes on, the leaf stays");
    default:
      return reading;
  }
}

/** What the trial showed, in short pieces. */
export function proof(fix: Fix, trans: Trans): string[] {
  const { verification } = fix;
  const parts: string[] = [];
  if (verification.status === "passed") {
    if (verification.losses_equal === true) parts.push(trans.__("same losses"));
    const right = verification.gradients.filter((row) => row.status === "ok").length;
    if (verification.gradients.length > 0) {
      parts.push(trans.__("%1 of %2 gradients right", right, verification.gradients.length));
    } else if (verification.gradients_equal === true) {
      parts.push(trans.__("gradients equal the reference"));
    }
    if (verification.covered !== null) {
      parts.push(
        trans._n("proved over the first round", "proved over the first %1 rounds", verification.covered),
      );
    }
    if (verification.reason !== null) parts.push(verification.reason);
  } else if (verification.reason !== null) {
    parts.push(verification.reason);
  } else if (verification.status === "failed") {
    if (verification.runs === false) parts.push(trans.__("it still raises"));
    else if (verification.losses_equal === false) parts.push(trans.__("it changes the losses"));
    else if (verification.gradients_equal === false)
      parts.push(trans.__("it runs, and its gradients are wrong"));
    else if (verification.verdict !== null)
      parts.push(trans.__("watched again it is `%1`", verification.verdict));
  }
  if (verification.status !== "failed" && fix.extra_bytes !== null) {
    parts.push(fix.extra_bytes === 0 ? trans.__("no extra memory") : `+${bytes(fix.extra_bytes)}`);
  }
  return parts;
}
