// The report as the view holds it: the contract (contract.ts, which is made from Python's dataclasses) with what reading
// makes of it. A field that the contract gains has to be read in read.ts, or tsc fails; a new word needs nothing here.

import type * as contract from "./contract";

export { FORMAT, MIME_TYPE } from "./contract";
export type { EventKind, FixKind, GradientStatus, Reading, TaskStatus, Verdict } from "./contract";

/** As read: numbers that JSON cannot hold are null, and what may be absent is there, empty. */
type Held<T> = contract.Float extends T ? number | null : Deep<T>;
type Deep<T> = T extends object ? { [K in keyof T]-?: Held<T[K]> } : T;

export type Site = Held<contract.Site>;
export type Mutation = Held<contract.Mutation>;
export type Task = Held<contract.Task>;
export type Gradient = Held<contract.Gradient>;
export type TimelineEvent = Held<contract.TimelineEvent>;

export interface Conflict extends Held<contract.Conflict> {
  /** Position in the report's list: what the timeline's `conflict` refers to. */
  id: number;
}

export interface TaskCosine extends Omit<Held<contract.TaskCosine>, "tasks"> {
  tasks: [string, string];
}

/** `proving`: the proof is still under way (`verification.pending` in the JSON). */
export type FixStatus = contract.ProofStatus | "proving";

export interface Verification extends Omit<Held<contract.Verification>, "status" | "pending"> {
  status: FixStatus;
}

/** Without `diff`: the view works the difference out from the sources, so that a report cannot show one and apply another. */
export interface Fix extends Omit<Held<contract.Fix>, "diff" | "verification"> {
  verification: Verification;
}

export interface Report extends Omit<
  Held<contract.Report>,
  "format" | "version" | "conflicts" | "task_cosines" | "fixes"
> {
  conflicts: Conflict[];
  task_cosines: TaskCosine[];
  fixes: Fix[];
}
