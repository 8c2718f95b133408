// The line `%%autograd_watch` on top of a cell: is it there, put it there, take it away.

const MAGIC = "%%autograd_watch";
// Cell magics that run their body as a cell of its own, and so may stand above ours.
const STACKS = /^%%(time|timeit|capture|prun)\b/;
const OURS = /^%%autograd_watch\b/;

function topLines(source: string): string[] {
  const lines = source.split("\n");
  const end = lines.findIndex((line) => !line.startsWith("%%") && line.trim() !== "");
  return end < 0 ? lines : lines.slice(0, end);
}

export function isWatched(source: string): boolean {
  return topLines(source).some((line) => OURS.test(line));
}

/** Whether the cell holds Python that can be watched: not another language's cell magic. */
export function canWatch(source: string): boolean {
  return topLines(source).every((line) => !line.startsWith("%%") || STACKS.test(line) || OURS.test(line));
}

/** The source with the magic on top (below `%%time` and its like); unchanged where it is there already. */
export function watched(source: string, options = ""): string {
  if (isWatched(source) || !canWatch(source)) return source;
  const lines = source.split("\n");
  let at = 0;
  lines.forEach((line, i) => {
    if (at === i && STACKS.test(line)) at = i + 1;
  });
  const words = options.trim();
  lines.splice(at, 0, words === "" ? MAGIC : `${MAGIC} ${words}`);
  return lines.join("\n");
}

/** The source without the magic. */
export function unwatched(source: string): string {
  const lines = source.split("\n");
  const at = topLines(source).findIndex((line) => OURS.test(line));
  if (at >= 0) lines.splice(at, 1);
  return lines.join("\n");
}
