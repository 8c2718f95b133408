// Which errors are torch's about in-place writes.

const PHRASES = [
  "has been modified by an inplace operation",
  "a leaf Variable that requires grad",
  "a view of a leaf Variable that requires grad",
  "is a view and is being modified inplace",
  "more than one element of the written-to tensor refers to a single memory location",
  "leaf variable has been moved into the graph interior",
];

/** Whether an error output (as notebooks store it) tells of an in-place write that autograd cannot bear. */
export function isPainful(error: unknown): boolean {
  if (typeof error !== "object" || error === null) return false;
  const { evalue } = error as { evalue?: unknown };
  return typeof evalue === "string" && PHRASES.some((phrase) => evalue.includes(phrase));
}
