// The report contract (version 1), as the view reads it. Names are those of the JSON.

export type Verdict = "rejected" | "breaks" | "corrupts" | "cuts" | "mixes" | "harmless";
export type GradientStatus = "ok" | "raises" | "wrong" | "lost";
export type TaskStatus = GradientStatus | "not_run";
export type EventKind = "save" | "write" | "backward" | "read";
export type FixKind = "clone" | "out_of_place" | "no_grad" | "reorder" | "preserve";
/** `proving`: the proof is still under way (`verification.pending` in the JSON). */
export type FixStatus = "passed" | "failed" | "unverified" | "proving";

/** A place in the source: lines from 1, columns from 0. */
export interface Site {
  file: string;
  line: number;
  column: number | null;
  end_line: number | null;
  end_column: number | null;
  /** The exact expression. */
  text: string;
  /** Its whole line, stripped. */
  line_text: string;
  function: string;
  /** Where the cell itself stands; null outside of a cell. */
  cell_line: number | null;
}

export interface Mutation {
  id: number;
  op: string;
  tensor: string;
  shape: number[];
  dtype: string;
  device: string;
  versions: [number, number] | null;
  time: number | null;
  count: number;
  site: Site | null;
  verdict: Verdict;
  pending: boolean;
  value_changed: boolean | null;
  tasks: string[];
  leaves: string[];
  note: string | null;
}

export interface Conflict {
  /** Position in the report's list: what the timeline's `conflict` refers to. */
  id: number;
  mutation: number;
  node: string;
  saved_as: string;
  tensor: string;
  saved_version: number | null;
  found_version: number | null;
  bytes_overlapping: number | null;
  saved_site: Site | null;
  module: string | null;
  tasks: string[];
  leaves: string[];
}

export interface Task {
  name: string;
  status: TaskStatus;
  site: Site | null;
}

export interface Gradient {
  task: string;
  leaf: string;
  status: GradientStatus;
  norm_as_run: number | null;
  norm_reference: number | null;
  relative_difference: number | null;
  cosine: number | null;
  occurrence: number | null;
  by_version: { version: number; norm: number | null }[];
}

export interface TaskCosine {
  leaf: string;
  tasks: [string, string];
  as_run: number | null;
  reference: number | null;
}

export interface TimelineEvent {
  seq: number;
  time: number | null;
  kind: EventKind;
  tensor: string | null;
  version: number | null;
  site: Site | null;
  task: string | null;
  mutation: number | null;
  conflict: number | null;
  count: number;
}

export interface Verification {
  status: FixStatus;
  covered: number | null;
  runs: boolean | null;
  verdict: Verdict | null;
  losses_equal: boolean | null;
  gradients_equal: boolean | null;
  reason: string | null;
  gradients: Gradient[];
}

export interface Fix {
  id: number;
  mutations: number[];
  kind: FixKind;
  title: string;
  /** The whole new cell. */
  source: string;
  extra_bytes: number | null;
  reading: "update" | "copy" | null;
  verification: Verification;
}

export interface Report {
  verdict: Verdict;
  summary: string;
  tool: string;
  framework: string;
  framework_version: string;
  rank: number | null;
  cell: { source: string; id: string | null; execution_count: number | null } | null;
  error: { type: string; message: string; site: Site | null } | null;
  mutations: Mutation[];
  conflicts: Conflict[];
  tasks: Task[];
  gradients: Gradient[];
  task_cosines: TaskCosine[];
  timeline: TimelineEvent[];
  fixes: Fix[];
  blind_spots: string[];
}

export const MIME_TYPE = "application/vnd.jupyter-inplace.v1+json";
export const FORMAT = "jupyter-inplace/report";
