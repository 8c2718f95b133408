// How a gradient is said.

import type { Gradient } from "../../report/types";
import { cosine, number, visible, type Trans } from "../../report/words";

/** A status that has no translation here is said as the contract says it. */
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
    case "unknown":
      return trans.__("not known");
    default:
      return status;
  }
}

/** All numbers of one gradient, a line each. */
export function describe(item: Gradient, trans: Trans): string {
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
