// Made by tools/make_contract.py from jupyter_inplace/report/data.py: change that, then `make contract`.

export const FORMAT = "jupyter-inplace/report";
export const VERSION = 1;
export const MIME_TYPE = "application/vnd.jupyter-inplace.v1+json";

export const VERDICTS = ["rejected", "breaks", "corrupts", "cuts", "unknown", "mixes", "harmless"] as const;
export type Verdict = (typeof VERDICTS)[number];

export const EFFECTS = ["discards_gradient", "cuts_later_reads", "overwrites_gradients"] as const;
export type Effect = (typeof EFFECTS)[number];

export const TASK_STATUSES = ["ok", "raises", "wrong", "lost", "not_run", "unknown"] as const;
export type TaskStatus = (typeof TASK_STATUSES)[number];

export const GRADIENT_STATUSES = ["ok", "raises", "wrong", "lost", "unknown"] as const;
export type GradientStatus = (typeof GRADIENT_STATUSES)[number];

export const EVENT_KINDS = ["save", "write", "backward", "read"] as const;
export type EventKind = (typeof EVENT_KINDS)[number];

export const FIX_KINDS = ["clone", "out_of_place", "no_grad", "reorder", "preserve"] as const;
export type FixKind = (typeof FIX_KINDS)[number];

export const READINGS = ["update", "copy"] as const;
export type Reading = (typeof READINGS)[number];

export const PROOF_STATUSES = ["passed", "failed", "unverified"] as const;
export type ProofStatus = (typeof PROOF_STATUSES)[number];

/** A number, or the word for one that JSON cannot hold. */
export type Float = number | "NaN" | "Infinity" | "-Infinity";

/** What a watch found. */
export interface Report {
  format: typeof FORMAT;
  version: typeof VERSION;
  tool: string;
  framework: string;
  framework_version: string | null;
  /** Which process of a job it is of; `world` is how many there are. */
  rank: number | null;
  verdict: Verdict;
  summary: string;
  cell: Cell | null;
  error: Error | null;
  mutations: Mutation[];
  conflicts: Conflict[];
  tasks: Task[];
  gradients: Gradient[];
  task_cosines: TaskCosine[];
  timeline: TimelineEvent[];
  fixes: Fix[];
  blind_spots: string[];
  world?: number | null;
  /** Of a merged report, the ranks that it is of. */
  ranks?: number[];
  /** Of a report of watched steps, how many were watched, and how many there were. */
  watched_steps?: number[];
  /** No operation of a framework was seen, so that there was nothing to watch. */
  nothing_ran?: boolean;
  /** What could not be worked out, or was seen and not compared, and may hide a harmful write. Each stands in `blind_spots` too. Where there is any, the verdict is `"unknown"` or worse. */
  unknown_because?: string[];
}

/** The watched notebook cell. */
export interface Cell {
  source: string;
  id: string | null;
  execution_count: number | null;
}

/** The exception that ended the watched cell. */
export interface Error {
  type: string;
  message: string;
  site: Site | null;
  /** It is known to be none that torch raises over an in-place write. */
  other_cause?: boolean;
}

/** An in-place write, or `count` writes at one place, as in a loop. */
export interface Mutation {
  id: number;
  op: string;
  tensor: string;
  /** Shape of the tensor written (of the view, if it is one) before the op. */
  shape: number[];
  dtype: string | null;
  device: string | null;
  storage: number | null;
  /** The version counter before and after; equal if torch did not bump it, None for inference tensors. */
  versions: [number, number] | null;
  /** Seconds from the start of the watch to the first write of this row. */
  time: Float | null;
  count: number;
  site: Site | null;
  verdict: Verdict;
  pending: boolean;
  value_changed: boolean | null;
  tasks: string[];
  leaves: string[];
  /** The names of all tensors that one optimizer step wrote. */
  tensors: string[];
  module: string | null;
  /** What else a person should know, in a few words without a full stop. */
  note: string | null;
  framework: string | null;
  /** In a merged report, how many of the writes each rank made; ranks that made none are left out. */
  ranks?: RankCount[];
  /** In a report of watched steps, in how many of them the write was made. */
  steps?: number | null;
  /** What the write did besides its verdict; `note` says it in words. `"discards_gradient"`: it cleared a gradient that nothing had read. `"cuts_later_reads"`: it breaks or corrupts a backward, and for what read the tensor afterwards it is a cut. `"overwrites_gradients"`: it overwrote gradients that share their memory. */
  effects?: Effect[];
  /** In a merged report, `note` without the part about ranks and steps. */
  own_note?: string | null;
}

/** A tensor that an autograd node had saved and that a write changed. */
export interface Conflict {
  /** The `id` of the write. */
  mutation: number;
  node: string;
  saved_as: string | null;
  tensor: string;
  saved_version: number | null;
  found_version: number | null;
  bytes_overlapping: number | null;
  saved_site: Site | null;
  module: string | null;
  tasks: string[];
  leaves: string[];
  value_changed: boolean | null;
  /** The saving expression ran before the watch began. */
  saved_before_watch: boolean;
  /** No backward has read the saved tensor yet. */
  pending: boolean;
}

/** A root of the graph, such as a loss, that was or would be differentiated. */
export interface Task {
  name: string;
  status: TaskStatus;
  site: Site | null;
}

/** The gradient of one task at one leaf: what the program gets, and the reference. */
export interface Gradient {
  task: string;
  leaf: string;
  status: GradientStatus;
  norm_as_run: Float | null;
  norm_reference: Float | null;
  /** `|as_run - reference| / |reference|`, Euclidean norms. */
  relative_difference: Float | null;
  cosine: Float | null;
  /** For a loop in one row, the iteration with these numbers (the worst one). */
  occurrence: number | null;
  /** The parts of the gradient, if the leaf was read at several versions; absent from the JSON if empty. */
  by_version?: VersionNorm[];
}

/** The cosine between two tasks' gradients at one shared leaf. */
export interface TaskCosine {
  leaf: string;
  tasks: string[];
  as_run: Float | null;
  reference: Float | null;
}

/** A write, a save, a backward or a read by it, in program order; `count` of them if a loop was folded into one. */
export interface TimelineEvent {
  seq: number;
  kind: EventKind;
  time: Float | null;
  tensor: string | null;
  version: number | null;
  site: Site | null;
  task: string | null;
  mutation: number | null;
  conflict: number | null;
  count: number;
}

/** A rewrite of the cell and its proof. */
export interface Fix {
  id: number;
  kind: FixKind;
  title: string;
  /** The whole new cell. */
  source: string;
  /** The `id` of each write that it fixes. */
  mutations: number[];
  /** A unified diff from the cell to `source`. */
  diff: string;
  extra_bytes: number | null;
  /** Of a rejected write: `"update"` if the leaf itself changes, `"copy"` if the program continues with a new tensor. */
  reading: Reading | null;
  verification: Verification;
}

/** A place in the user's source: lines count from 1, columns from 0 in characters. */
export interface Site {
  file: string;
  line: number;
  column: number | null;
  end_line: number | null;
  end_column: number | null;
  /** The exact expression. */
  text: string;
  /** Its whole source line, stripped. */
  line_text: string;
  function: string | null;
  /** Where the cell itself stands (line 1 is the magic line); None outside a cell. */
  cell_line: number | null;
}

/** How many writes one rank made. */
export interface RankCount {
  rank: number;
  count: number;
}

/** The norm of the part of a gradient that belongs to one version of its leaf. */
export interface VersionNorm {
  version: number;
  norm: Float | null;
}

/** The result of running a rewrite on a copy of the state from before the cell. */
export interface Verification {
  status: ProofStatus;
  /** How many rounds (backward to step) were proved, if the cell was not run to its end. */
  covered: number | null;
  runs: boolean | null;
  verdict: Verdict | null;
  losses_equal: boolean | null;
  gradients_equal: boolean | null;
  reason: string | null;
  gradients: Gradient[];
  /** The proof is still running. */
  pending: boolean;
}
