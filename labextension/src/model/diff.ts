// The difference of two cells, worked out here from the very texts that Apply exchanges: what is shown is what
// is applied, whatever the report's own `diff` says.

export interface DiffLine {
  kind: "same" | "removed" | "added" | "gap";
  text: string;
  /** Line in the old cell (removed, same) or in the new one (added), from 1. */
  line: number;
  /** The changed middle of a line that stands opposite to another: from, to. */
  changed: [number, number] | null;
}

const TOO_LONG = 2000;

/** Changed lines with `context` unchanged ones about them; gaps where lines are left out. */
export function diffLines(before: string, after: string, context = 0): DiffLine[] {
  const old = before.split("\n");
  const now = after.split("\n");
  let head = 0;
  while (head < old.length && head < now.length && old[head] === now[head]) head += 1;
  let tail = 0;
  while (
    tail < old.length - head &&
    tail < now.length - head &&
    old[old.length - 1 - tail] === now[now.length - 1 - tail]
  ) {
    tail += 1;
  }
  const middle = compare(old.slice(head, old.length - tail), now.slice(head, now.length - tail));
  const lines: DiffLine[] = [
    ...old.slice(0, head).map((text, i) => same(text, i + 1)),
    ...middle.map((item) => ({ ...item, line: item.line + head })),
    ...old.slice(old.length - tail).map((text, i) => same(text, old.length - tail + i + 1)),
  ];
  return cut(pairUp(lines), context);
}

function same(text: string, line: number): DiffLine {
  return { kind: "same", text, line, changed: null };
}

// Longest common subsequence of lines; beyond a size, everything removed and everything added.
function compare(old: readonly string[], now: readonly string[]): DiffLine[] {
  const removed = (i: number): DiffLine => ({
    kind: "removed",
    text: old[i] ?? "",
    line: i + 1,
    changed: null,
  });
  const added = (j: number): DiffLine => ({ kind: "added", text: now[j] ?? "", line: j + 1, changed: null });
  if (old.length * now.length > TOO_LONG * TOO_LONG) {
    return [...old.map((_, i) => removed(i)), ...now.map((_, j) => added(j))];
  }
  const width = now.length + 1;
  const common = new Uint32Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = now.length - 1; j >= 0; j -= 1) {
      common[i * width + j] =
        old[i] === now[j]
          ? (common[(i + 1) * width + j + 1] ?? 0) + 1
          : Math.max(common[(i + 1) * width + j] ?? 0, common[i * width + j + 1] ?? 0);
    }
  }
  const lines: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      lines.push(same(old[i] ?? "", i + 1));
      i += 1;
      j += 1;
    } else if (
      i < old.length &&
      (j >= now.length || (common[(i + 1) * width + j] ?? 0) >= (common[i * width + j + 1] ?? 0))
    ) {
      lines.push(removed(i));
      i += 1;
    } else {
      lines.push(added(j));
      j += 1;
    }
  }
  return lines;
}

// Where as many lines were removed as added, the n-th stands opposite to the n-th: mark what differs in them.
function pairUp(lines: readonly DiffLine[]): DiffLine[] {
  const result = lines.map((item) => ({ ...item }));
  let i = 0;
  while (i < result.length) {
    const start = i;
    while (result[i]?.kind === "removed") i += 1;
    const removed = result.slice(start, i);
    const from = i;
    while (result[i]?.kind === "added") i += 1;
    const added = result.slice(from, i);
    if (removed.length > 0 && removed.length === added.length) {
      removed.forEach((old, n) => {
        const now = added[n];
        if (now === undefined) return;
        const [a, b, c] = ends(old.text, now.text);
        old.changed = [a, b];
        now.changed = [a, c];
      });
    }
    if (i === start) i += 1;
  }
  return result;
}

function ends(old: string, now: string): [number, number, number] {
  let head = 0;
  while (head < old.length && head < now.length && old[head] === now[head]) head += 1;
  let tail = 0;
  while (
    tail < old.length - head &&
    tail < now.length - head &&
    old[old.length - 1 - tail] === now[now.length - 1 - tail]
  ) {
    tail += 1;
  }
  return [head, old.length - tail, now.length - tail];
}

function cut(lines: readonly DiffLine[], context: number): DiffLine[] {
  const kept = lines.map((item, at) => {
    for (let near = at - context; near <= at + context; near += 1) {
      const other = lines[near];
      if (other !== undefined && other.kind !== "same") return true;
    }
    return item.kind !== "same";
  });
  const result: DiffLine[] = [];
  lines.forEach((item, at) => {
    if (kept[at] === true) result.push(item);
    else if (result.length > 0 && result.at(-1)?.kind !== "gap") {
      result.push({ kind: "gap", text: "", line: item.line, changed: null });
    }
  });
  if (result.at(-1)?.kind === "gap") result.pop();
  return result;
}

/** The one range of `before` that has to be replaced to get `after`, with its new text. */
export function changedRange(before: string, after: string): { start: number; end: number; text: string } {
  const [start, end, newEnd] = ends(before, after);
  return { start, end, text: after.slice(start, newEnd) };
}
