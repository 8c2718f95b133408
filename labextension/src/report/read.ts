// Reads JSON that somebody else may have written into a Report. Only a wrong format is refused.

import {
  EFFECTS,
  EVENT_KINDS,
  FIX_KINDS,
  FORMAT,
  GRADIENT_STATUSES,
  PROOF_STATUSES,
  READINGS,
  TASK_STATUSES,
  VERDICTS,
  VERSION,
} from "./contract";
import type * as contract from "./contract";
import {
  integer,
  isObject,
  list,
  number,
  numbers,
  oneOf,
  text,
  textOrNull,
  texts,
  truth,
  words,
} from "./fields";
import type { Unread } from "./fields";
import type {
  Conflict,
  Fix,
  Gradient,
  Mutation,
  Report,
  Site,
  Task,
  TaskCosine,
  TimelineEvent,
  Verdict,
  Verification,
} from "./types";

/** What was handed over is no report of a version that this view knows. */
export class ReportError extends Error {}

/** 0 for `harmless`, most for `rejected`. */
export function severity(verdict: Verdict): number {
  return VERDICTS.length - 1 - VERDICTS.indexOf(verdict);
}

/** What stands for a word that this view does not know. */
const NO_VERDICT: Verdict = "unknown";
const NO_STATUS: contract.GradientStatus = "unknown";

function site(value: unknown): Site | null {
  if (!isObject(value)) return null;
  const item: Unread<contract.Site> = value;
  return {
    file: text(item.file),
    line: integer(item.line, 0),
    column: number(item.column),
    end_line: number(item.end_line),
    end_column: number(item.end_column),
    text: text(item.text),
    line_text: text(item.line_text),
    function: textOrNull(item.function),
    cell_line: number(item.cell_line),
  };
}

function cell(value: unknown): contract.Cell | null {
  if (!isObject(value)) return null;
  const item: Unread<contract.Cell> = value;
  return {
    source: text(item.source),
    id: textOrNull(item.id),
    execution_count: number(item.execution_count),
  };
}

function error(value: unknown): Report["error"] {
  if (!isObject(value)) return null;
  const item: Unread<contract.Error> = value;
  return {
    type: text(item.type),
    message: text(item.message),
    site: site(item.site),
    other_cause: item.other_cause === true,
  };
}

function mutation(item: Unread<contract.Mutation>, index: number): Mutation {
  const versions = Array.isArray(item.versions) ? item.versions.map(number) : [];
  const [before, after] = versions;
  return {
    id: integer(item.id, index),
    op: text(item.op, "?"),
    tensor: text(item.tensor, "?"),
    shape: Array.isArray(item.shape) ? item.shape.map((side) => integer(side, 0)) : [],
    dtype: textOrNull(item.dtype),
    device: textOrNull(item.device),
    storage: number(item.storage),
    versions: typeof before === "number" && typeof after === "number" ? [before, after] : null,
    time: number(item.time),
    count: integer(item.count, 1),
    site: site(item.site),
    verdict: oneOf(item.verdict, VERDICTS, NO_VERDICT),
    pending: item.pending === true,
    value_changed: truth(item.value_changed),
    tasks: texts(item.tasks),
    leaves: texts(item.leaves),
    tensors: texts(item.tensors),
    module: textOrNull(item.module),
    note: textOrNull(item.note),
    framework: textOrNull(item.framework),
    ranks: list(item.ranks, rankCount),
    steps: number(item.steps),
    effects: words(item.effects, EFFECTS),
    own_note: textOrNull(item.own_note),
  };
}

function rankCount(item: Unread<contract.RankCount>): contract.RankCount {
  return { rank: integer(item.rank, 0), count: integer(item.count, 0) };
}

function conflict(item: Unread<contract.Conflict>, index: number): Conflict {
  return {
    id: index,
    mutation: integer(item.mutation, -1),
    node: text(item.node),
    saved_as: textOrNull(item.saved_as),
    tensor: text(item.tensor, "?"),
    saved_version: number(item.saved_version),
    found_version: number(item.found_version),
    bytes_overlapping: number(item.bytes_overlapping),
    saved_site: site(item.saved_site),
    module: textOrNull(item.module),
    tasks: texts(item.tasks),
    leaves: texts(item.leaves),
    value_changed: truth(item.value_changed),
    saved_before_watch: item.saved_before_watch === true,
    pending: item.pending === true,
  };
}

function task(item: Unread<contract.Task>): Task {
  return {
    name: text(item.name, "?"),
    status: oneOf(item.status, TASK_STATUSES, NO_STATUS),
    site: site(item.site),
  };
}

function gradient(item: Unread<contract.Gradient>): Gradient {
  return {
    task: text(item.task, "?"),
    leaf: text(item.leaf, "?"),
    status: oneOf(item.status, GRADIENT_STATUSES, NO_STATUS),
    norm_as_run: number(item.norm_as_run),
    norm_reference: number(item.norm_reference),
    relative_difference: number(item.relative_difference),
    cosine: number(item.cosine),
    occurrence: number(item.occurrence),
    by_version: list(item.by_version, versionNorm),
  };
}

function versionNorm(item: Unread<contract.VersionNorm>): Gradient["by_version"][number] {
  return { version: integer(item.version, 0), norm: number(item.norm) };
}

function cosine(item: Unread<contract.TaskCosine>): TaskCosine {
  const [first = "?", second = "?"] = texts(item.tasks);
  return {
    leaf: text(item.leaf, "?"),
    tasks: [first, second],
    as_run: number(item.as_run),
    reference: number(item.reference),
  };
}

function event(item: Unread<contract.TimelineEvent>, index: number): TimelineEvent {
  return {
    seq: number(item.seq) ?? index,
    time: number(item.time),
    kind: oneOf(item.kind, EVENT_KINDS, "save"),
    tensor: textOrNull(item.tensor),
    version: number(item.version),
    site: site(item.site),
    task: textOrNull(item.task),
    mutation: number(item.mutation),
    conflict: number(item.conflict),
    count: integer(item.count, 1),
  };
}

function verification(value: unknown): Verification {
  const item: Unread<contract.Verification> = isObject(value) ? value : {};
  return {
    status: item.pending === true ? "proving" : oneOf(item.status, PROOF_STATUSES, "unverified"),
    covered: number(item.covered),
    runs: truth(item.runs),
    verdict: item.verdict == null ? null : oneOf(item.verdict, VERDICTS, NO_VERDICT),
    losses_equal: truth(item.losses_equal),
    gradients_equal: truth(item.gradients_equal),
    reason: textOrNull(item.reason),
    gradients: list(item.gradients, gradient),
  };
}

function fix(item: Unread<contract.Fix>, index: number): Fix {
  return {
    id: integer(item.id, index),
    mutations: numbers(item.mutations),
    kind: oneOf(item.kind, FIX_KINDS, "clone"),
    title: text(item.title),
    source: text(item.source),
    extra_bytes: number(item.extra_bytes),
    reading: READINGS.find((word) => word === item.reading) ?? null,
    verification: verification(item.verification),
  };
}

/**
 * The report in `data`.
 *
 * @throws ReportError in one sentence, when `data` is no report or one of a later version.
 */
export function readReport(data: unknown): Report {
  const whole: Unread<contract.Report> = isObject(data) ? data : {};
  if (whole.format !== FORMAT) {
    throw new ReportError("This output is not a jupyter_inplace report.");
  }
  if (whole.version !== VERSION) {
    throw new ReportError(
      `This report has version ${text(whole.version, JSON.stringify(whole.version))}; ` +
        `this panel reads version ${VERSION}. A newer jupyter_inplace can show it.`,
    );
  }
  return {
    verdict: oneOf(whole.verdict, VERDICTS, NO_VERDICT),
    summary: text(whole.summary),
    tool: text(whole.tool),
    framework: text(whole.framework),
    framework_version: textOrNull(whole.framework_version),
    rank: number(whole.rank),
    cell: cell(whole.cell),
    error: error(whole.error),
    mutations: list(whole.mutations, mutation),
    conflicts: list(whole.conflicts, conflict),
    tasks: list(whole.tasks, task),
    gradients: list(whole.gradients, gradient),
    task_cosines: list(whole.task_cosines, cosine),
    timeline: list(whole.timeline, event).sort((a, b) => a.seq - b.seq),
    fixes: list(whole.fixes, fix),
    blind_spots: texts(whole.blind_spots),
    world: number(whole.world),
    ranks: numbers(whole.ranks),
    watched_steps: numbers(whole.watched_steps),
    nothing_ran: whole.nothing_ran === true,
    unknown_because: texts(whole.unknown_because),
  };
}
