// Reads JSON that somebody else may have written into a Report: every field is checked, nothing is
// trusted, and what is missing or of the wrong type takes a harmless value. Only a wrong format is refused.

import {
  FORMAT,
  type Conflict,
  type Fix,
  type Gradient,
  type Mutation,
  type Report,
  type Site,
  type Task,
  type TaskCosine,
  type TimelineEvent,
  type Verdict,
  type Verification,
} from "./types";

type Json = Readonly<Record<string, unknown>>;

/** What was handed over is no report of a version that this view knows. */
export class ReportError extends Error {}

const VERDICTS = ["harmless", "mixes", "cuts", "corrupts", "breaks", "rejected"] as const;

/** 0 for `harmless` up to 5 for `rejected`. */
export function severity(verdict: Verdict): number {
  return VERDICTS.indexOf(verdict);
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown, fallback = ""): string {
  return typeof value === "string" ? value : fallback;
}

function textOrNull(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function integer(value: unknown, fallback: number): number {
  return typeof value === "number" && Number.isInteger(value) ? value : fallback;
}

function truth(value: unknown): boolean | null {
  return typeof value === "boolean" ? value : null;
}

function oneOf<T extends string>(value: unknown, allowed: readonly T[], fallback: T): T {
  return allowed.find((word) => word === value) ?? fallback;
}

function list<T>(value: unknown, read: (item: Json, index: number) => T): T[] {
  return Array.isArray(value) ? value.filter(isObject).map(read) : [];
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

function site(value: unknown): Site | null {
  if (!isObject(value)) return null;
  return {
    file: text(value["file"]),
    line: integer(value["line"], 0),
    column: number(value["column"]),
    end_line: number(value["end_line"]),
    end_column: number(value["end_column"]),
    text: text(value["text"]),
    line_text: text(value["line_text"]),
    function: text(value["function"]),
    cell_line: number(value["cell_line"]),
  };
}

function mutation(item: Json, index: number): Mutation {
  const versions = Array.isArray(item["versions"]) ? item["versions"].map(number) : [];
  const [before, after] = versions;
  return {
    id: integer(item["id"], index),
    op: text(item["op"], "?"),
    tensor: text(item["tensor"], "?"),
    shape: Array.isArray(item["shape"]) ? item["shape"].map((side) => integer(side, 0)) : [],
    dtype: text(item["dtype"]),
    device: text(item["device"]),
    versions: typeof before === "number" && typeof after === "number" ? [before, after] : null,
    time: number(item["time"]),
    count: integer(item["count"], 1),
    site: site(item["site"]),
    verdict: oneOf(item["verdict"], VERDICTS, "harmless"),
    pending: item["pending"] === true,
    value_changed: truth(item["value_changed"]),
    tasks: texts(item["tasks"]),
    leaves: texts(item["leaves"]),
    note: textOrNull(item["note"]),
  };
}

function conflict(item: Json, index: number): Conflict {
  return {
    id: index,
    mutation: integer(item["mutation"], -1),
    node: text(item["node"]),
    saved_as: text(item["saved_as"]),
    tensor: text(item["tensor"], "?"),
    saved_version: number(item["saved_version"]),
    found_version: number(item["found_version"]),
    bytes_overlapping: number(item["bytes_overlapping"]),
    saved_site: site(item["saved_site"]),
    module: textOrNull(item["module"]),
    tasks: texts(item["tasks"]),
    leaves: texts(item["leaves"]),
  };
}

function task(item: Json): Task {
  return {
    name: text(item["name"], "?"),
    status: oneOf(item["status"], ["ok", "raises", "wrong", "lost", "not_run"], "ok"),
    site: site(item["site"]),
  };
}

function gradient(item: Json): Gradient {
  return {
    task: text(item["task"], "?"),
    leaf: text(item["leaf"], "?"),
    status: oneOf(item["status"], ["ok", "raises", "wrong", "lost"], "ok"),
    norm_as_run: number(item["norm_as_run"]),
    norm_reference: number(item["norm_reference"]),
    relative_difference: number(item["relative_difference"]),
    cosine: number(item["cosine"]),
    occurrence: number(item["occurrence"]),
    by_version: list(item["by_version"], (part) => ({
      version: integer(part["version"], 0),
      norm: number(part["norm"]),
    })),
  };
}

function cosine(item: Json): TaskCosine {
  const [first = "?", second = "?"] = texts(item["tasks"]);
  return {
    leaf: text(item["leaf"], "?"),
    tasks: [first, second],
    as_run: number(item["as_run"]),
    reference: number(item["reference"]),
  };
}

function event(item: Json, index: number): TimelineEvent {
  return {
    seq: number(item["seq"]) ?? index,
    time: number(item["time"]),
    kind: oneOf(item["kind"], ["save", "write", "backward", "read"], "save"),
    tensor: textOrNull(item["tensor"]),
    version: number(item["version"]),
    site: site(item["site"]),
    task: textOrNull(item["task"]),
    mutation: number(item["mutation"]),
    conflict: number(item["conflict"]),
    count: integer(item["count"], 1),
  };
}

function verification(value: unknown): Verification {
  const item = isObject(value) ? value : {};
  return {
    status:
      item["pending"] === true
        ? "proving"
        : oneOf(item["status"], ["passed", "failed", "unverified"], "unverified"),
    covered: number(item["covered"]),
    runs: truth(item["runs"]),
    verdict: item["verdict"] == null ? null : oneOf(item["verdict"], VERDICTS, "harmless"),
    losses_equal: truth(item["losses_equal"]),
    gradients_equal: truth(item["gradients_equal"]),
    reason: textOrNull(item["reason"]),
    gradients: list(item["gradients"], gradient),
  };
}

function fix(item: Json, index: number): Fix {
  const reading = item["reading"];
  return {
    id: integer(item["id"], index),
    mutations: Array.isArray(item["mutations"])
      ? item["mutations"].filter((id) => typeof id === "number")
      : [],
    kind: oneOf(item["kind"], ["clone", "out_of_place", "no_grad", "reorder", "preserve"], "clone"),
    title: text(item["title"]),
    source: text(item["source"]),
    extra_bytes: number(item["extra_bytes"]),
    reading: reading === "update" || reading === "copy" ? reading : null,
    verification: verification(item["verification"]),
  };
}

/**
 * The report in `data`.
 *
 * @throws ReportError in one sentence, when `data` is no report or one of a later version.
 */
export function readReport(data: unknown): Report {
  if (!isObject(data) || data["format"] !== FORMAT) {
    throw new ReportError("This output is not a jupyter_inplace report.");
  }
  if (data["version"] !== 1) {
    throw new ReportError(
      `This report has version ${text(data["version"], JSON.stringify(data["version"]))}; ` +
        "this panel reads version 1. A newer jupyter_inplace can show it.",
    );
  }
  const cell = data["cell"];
  const error = data["error"];
  const rank = data["rank"];
  return {
    verdict: oneOf(data["verdict"], VERDICTS, "harmless"),
    summary: text(data["summary"]),
    tool: text(data["tool"]),
    framework: text(data["framework"]),
    framework_version: text(data["framework_version"]),
    rank: number(rank),
    cell: isObject(cell)
      ? {
          source: text(cell["source"]),
          id: textOrNull(cell["id"]),
          execution_count: number(cell["execution_count"]),
        }
      : null,
    error: isObject(error)
      ? { type: text(error["type"]), message: text(error["message"]), site: site(error["site"]) }
      : null,
    mutations: list(data["mutations"], mutation),
    conflicts: list(data["conflicts"], conflict),
    tasks: list(data["tasks"], task),
    gradients: list(data["gradients"], gradient),
    task_cosines: list(data["task_cosines"], cosine),
    timeline: list(data["timeline"], event).sort((a, b) => a.seq - b.seq),
    fixes: list(data["fixes"], fix),
    blind_spots: texts(data["blind_spots"]),
  };
}
